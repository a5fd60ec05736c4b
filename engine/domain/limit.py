"""Limits: how much may leave an account, and come into it on chain, within rolling windows. Pure.

    kind                counts                                          in
    internal            what payments to our users take                 msat
    lightning           what payments over Lightning take               msat
    withdrawal          what withdrawals on chain take                  msat
    deposit             what deposits bring                             msat
    internal:USD, …     the same at the price of its moment             millionths of the currency
    api_key:<key id>    what one key spends, over all kinds             msat

The rulebook "limits" says how much each level may move; a level without an entry has that of the nearest lower one. A
kind or a window that an entry does not name has no limit there. A payment takes its amount and all that may be paid on
top, routing cap and our fee: otherwise fees would escape every limit. A withdrawal takes all that is held for it,
likewise. What was held and not paid is given back when the payment or the withdrawal ends. A deposit counts its amount
when it is first seen, and what its owner was credited once it is booked. One that exceeds a limit is not refused: it is
held for an operator. The ledger counts and refuses (`Count`). The rulebook also bounds the routing cap
(`routing_cap.py`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from engine.domain.errors import InvariantBroken
from engine.domain.ids import ApiKeyId
from engine.domain.money import (
    MAX_AMOUNT_MSAT,
    Msat,
    Sat,
    fiat_text,
    msat_to_fiat_ceil,
    msat_to_sat_floor,
    parse_fiat,
    sat_to_msat,
)
from engine.domain.routing_cap import DEFAULT_MAX_FEE_FACTOR, HIGHEST_MAX_FEE_FACTOR
from engine.domain.rulebook_content import check_names, read_object, read_whole, wrong

PaymentKind = Literal["internal", "lightning"]
"""How a payment leaves."""
Kind = Literal[PaymentKind, "withdrawal", "deposit"]
Window = Literal["day", "week", "month"]

KINDS: tuple[Kind, ...] = get_args(Kind)
WINDOWS: Mapping[Window, int] = {"day": 86_400, "week": 7 * 86_400, "month": 30 * 86_400}
"""Seconds. The ledger counts in these windows and no others (`engine/ledger/sql/counted_windows.sql`)."""
MAX_LIMIT_SAT = msat_to_sat_floor(MAX_AMOUNT_MSAT)

MAX_COUNT = 10**18
"""The most that one payment counts in another currency; what is worth more counts as this. No limit is as high."""

_WINDOW_OF: Mapping[int, Window] = {seconds: window for window, seconds in WINDOWS.items()}
_LEVELS = {str(level): level for level in range(10)}
_CURRENCY = re.compile(r"[A-Z]{3}")
_KEY = "api_key"


@dataclass(frozen=True, slots=True)
class Count:
    """What a posting counts under one kind, and the most that may be counted per window (seconds) with it."""

    kind: str
    amount: int
    maxima: Mapping[int, int] = field(default_factory=dict[int, int])


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The most of one kind within one window: in msat, or in millionths of a currency."""

    kind: Kind
    window: Window
    amount: int
    currency: str | None = None

    @property
    def counter(self) -> str:
        """The ledger's kind for it."""
        return f"{self.kind}:{self.currency}" if self.currency else self.kind


@dataclass(frozen=True, slots=True)
class LimitBook:
    """A version of the rulebook, read: the limits of each level that has an entry, and the factor of the highest
    routing cap (`routing_cap.py`)."""

    levels: Mapping[int, Sequence[Limit]]
    max_fee_factor: int = DEFAULT_MAX_FEE_FACTOR

    def of_level(self, level: int) -> Sequence[Limit]:
        """What applies to accounts of this level."""
        entries = [entry for entry in self.levels if entry <= level]
        return self.levels[max(entries)] if entries else ()

    def currencies(self, level: int, kind: Kind) -> set[str]:
        """In which currencies such a movement is limited, so that a price is needed."""
        return {limit.currency for limit in self.of_level(level) if limit.kind == kind and limit.currency}

    def all_currencies(self) -> set[str]:
        """All currencies that the book names."""
        return {limit.currency for limits in self.levels.values() for limit in limits if limit.currency}


# What counts


def level_counts(
    book: LimitBook, level: int, kind: Kind, total_msat: Msat, prices_micro: Mapping[str, int]
) -> list[Count]:
    """What a payment or a deposit of this total counts towards the limits of its account's level.

    Needs the price of each of `currencies`, however old. The first count is the total, in msat: from it the ledger
    knows that what is not paid in the end must be given back (`ledger.count_down`).
    """
    limits = [limit for limit in book.of_level(level) if limit.kind == kind]
    counts = [Count(kind, total_msat, _maxima(limit for limit in limits if limit.currency is None))]
    for currency in sorted(book.currencies(level, kind)):
        in_fiat = [limit for limit in limits if limit.currency == currency]
        micro = min(MAX_COUNT, msat_to_fiat_ceil(total_msat, prices_micro[currency]))
        counts.append(Count(in_fiat[0].counter, micro, _maxima(in_fiat)))
    return counts


def key_count(key_id: ApiKeyId, caps: Mapping[Window, Sat], total_msat: Msat) -> Count:
    """What a payment of this total counts towards the caps of its API key."""
    maxima = {WINDOWS[window]: sat_to_msat(cap_sat) for window, cap_sat in caps.items()}
    return Count(key_counter(key_id), total_msat, maxima)


def key_counter(key_id: ApiKeyId) -> str:
    """The ledger's kind for what this key spends."""
    return f"{_KEY}:{key_id}"


def _maxima(limits: Iterable[Limit]) -> dict[int, int]:
    return {WINDOWS[limit.window]: limit.amount for limit in limits}


# Refusals


def exceeded(fields: Mapping[str, Any]) -> tuple[str, str, dict[str, str | int | None]]:
    """The ledger's refusal as the caller reads it: code, sentence, fields."""
    kind, _, of_what = str(fields["kind"]).partition(":")
    window = window_name(int(fields["window_s"]))
    limit, used, asked = (int(fields[name]) for name in ("limit", "used", "asked"))
    if kind != _KEY and of_what:
        named = {"limit": fiat_text(limit), "used": fiat_text(used), "asked": fiat_text(asked), "currency": of_what}
        detail = _sentence(kind, window, f"{named['limit']} {of_what}", named["used"], named["asked"])
        return "limit_exceeded", detail, {"kind": kind, "window": window, **named}
    in_msat: dict[str, str | int | None] = {"limit_msat": limit, "used_msat": used, "asked_msat": asked}
    detail = _sentence(kind, window, f"{limit:,} msat", f"{used:,}", f"{asked:,}")
    code = "spend_limit_exceeded" if kind == _KEY else "limit_exceeded"
    return code, detail, {"kind": kind, "window": window, **in_msat}


def _sentence(kind: str, window: Window, limit: str, used: str, asked: str) -> str:
    if kind == "deposit":
        return f"At most {limit} of deposits a {window}; {used} have come in, and this deposit brings {asked}."
    if kind == "withdrawal":
        return f"At most {limit} of withdrawals a {window}, fees included; {used} are used, and this may take {asked}."
    who = "by this key" if kind == _KEY else f"of {kind} payments"
    return f"At most {limit} {who} a {window}, fees included; {used} are used, and this payment may take {asked}."


def window_name(window_s: int) -> Window:
    """Its name. Raises InvariantBroken for one that is not counted."""
    if window_s not in _WINDOW_OF:
        raise InvariantBroken(f"{window_s} s is no window of ours")
    return _WINDOW_OF[window_s]


# The rulebook


def parse_limits(content: Mapping[str, Any]) -> LimitBook:
    """Read a rulebook's content. Raises Invalid, naming the place, for the first deviation.

    {"levels": {"0": {"lightning": {"day_sat": 5000000, "month_sat": 90000000, "day": {"USD": "1000.00"}}}},
     "max_fee_factor": 20}
    """
    check_names(content, {"levels", "max_fee_factor"}, "content")
    levels = read_object(content.get("levels", {}), "levels")
    check_names(levels, set(_LEVELS), "levels")
    return LimitBook(
        {_LEVELS[level]: _read_level(entry, f"levels.{level}") for level, entry in levels.items()},
        read_whole(content.get("max_fee_factor", DEFAULT_MAX_FEE_FACTOR), "max_fee_factor", 1, HIGHEST_MAX_FEE_FACTOR),
    )


def _read_level(entry: object, place: str) -> list[Limit]:
    kinds = read_object(entry, place)
    check_names(kinds, set(KINDS), place)
    return [limit for kind in KINDS if kind in kinds for limit in _read_kind(kind, kinds[kind], f"{place}.{kind}")]


def _read_kind(kind: Kind, entry: object, place: str) -> list[Limit]:
    given = read_object(entry, place)
    check_names(given, {*WINDOWS, *(f"{window}_sat" for window in WINDOWS)}, place)
    limits: list[Limit] = []
    for window in WINDOWS:
        name = f"{window}_sat"
        if name in given:
            amount_msat = sat_to_msat(Sat(read_whole(given[name], f"{place}.{name}", 0, MAX_LIMIT_SAT, "sat")))
            limits.append(Limit(kind=kind, window=window, amount=amount_msat))
        for currency, text in read_object(given.get(window, {}), f"{place}.{window}").items():
            where = f"{place}.{window}.{currency}"
            if not _CURRENCY.fullmatch(currency) or currency == "BTC":
                raise wrong(where, "names no currency: three capital letters, and not BTC")
            limits.append(Limit(kind=kind, window=window, amount=_fiat(text, where), currency=currency))
    _check_order(limits, place)
    return limits


def _check_order(limits: Sequence[Limit], place: str) -> None:
    """A longer window's limit below a shorter one's could only be a slip: the shorter would never bind."""
    for currency in {limit.currency for limit in limits}:
        amounts = [limit.amount for limit in limits if limit.currency == currency]
        if amounts != sorted(amounts):
            raise wrong(place, f"a longer window allows less than a shorter one ({currency or 'sat'})")


def _fiat(value: object, place: str) -> int:
    micro = parse_fiat(value) if isinstance(value, str) else None
    if micro is None:
        raise wrong(place, 'must be an amount in quotation marks such as "1000.00", with at most six decimals')
    return micro
