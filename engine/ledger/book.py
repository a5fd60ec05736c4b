"""A posting: one business event as balanced legs.

A posting that exists is well-formed: it has a reference, legs that sum to zero, no leg of zero, no account twice, and a
phase that fits its legs. Funds, limits, open holds and currencies are known to the books alone: the database checks
them when the posting is posted (`store.post_in_tx`). Pure: no clock, no I/O, safe inside workflow code.

    phase    legs   layer          relates_to
    post     yes    settled        nothing
    hold     yes    held           nothing; reserves until it is settled, voided or expired, once
    settle   yes    settled        the holds it resolves; moves at most what was held, the rest is free again
    void     none   (releases)     the holds it releases
    expire   none   (releases)     the holds it releases, all past their `expires_at`
    reverse  yes    settled        the one post or settle that it takes back, in part or whole, once

A posting may be repeated at any time: the reference is taken once, and the same content again is the same transfer.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Literal

from engine.domain.errors import InvariantBroken
from engine.domain.limit import WINDOWS, Count

Phase = Literal["post", "hold", "settle", "void", "expire", "reverse"]
Fact = str | int | bool | None

MAX_LEGS = 5_000
MAX_RELATED = 1_000
MAX_COUNTS = 100
MAX_WORD = 200
MAX_LEG_MSAT = 2_100_000_000_000_000_000
"""All bitcoin that will ever exist; far enough below 2^63 that a sum of a few does not overflow."""

_SHAPES: dict[Phase, tuple[bool, int, int]] = {
    "post": (True, 0, 0),
    "hold": (True, 0, 0),
    "settle": (True, 1, MAX_RELATED),
    "void": (False, 1, MAX_RELATED),
    "expire": (False, 1, MAX_RELATED),
    "reverse": (True, 1, 1),
}
"""Per phase: whether it has legs, and the fewest and most transfers that it relates to."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One account's part in a posting, in msat (micro-dollars on a USD account): debit +, credit −."""

    account_id: int
    amount_msat: int


def debit(account_id: int, amount_msat: int) -> Leg:
    """More for an asset or an expense, less for a user. Raises InvariantBroken unless the amount is positive."""
    return Leg(account_id, _positive(amount_msat))


def credit(account_id: int, amount_msat: int) -> Leg:
    """Less for an asset, more for a user, income or capital. Raises InvariantBroken unless the amount is positive."""
    return Leg(account_id, -_positive(amount_msat))


@dataclass(frozen=True, slots=True)
class Counted:
    """What a posting counts towards limits on one of its accounts. A hold that is voided or expires gives it back."""

    account_id: int
    counts: Sequence[Count]


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """A transfer before it is posted. Raises InvariantBroken when it is not well-formed.

    `ref` names the outside fact (`ln:<hash>:settle`), `relates_to` the refs of the transfers that it resolves.
    `expires_at` (holds only) is a hard end: afterwards the hold can be released and not settled, so it is for what we
    alone decide. `effective_on` is the day in the books, by default the day of posting (UTC).
    `metadata` holds facts of the event and is part of its content: put nothing there that differs in a repeat.
    `actor`, `workflow_id` and `description` say who and why. `counted` says what it counts by the rules and prices of
    its moment. A repeat may differ in these four; the first stays.
    """

    ref: str
    template: str
    phase: Phase
    actor: str
    legs: Sequence[Leg] = ()
    relates_to: Sequence[str] = ()
    workflow_id: str | None = None
    description: str | None = None
    metadata: Mapping[str, Fact] = field(default_factory=dict[str, Fact])
    effective_on: date | None = None
    expires_at: datetime | None = None
    counted: Counted | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "legs", tuple(self.legs))
        object.__setattr__(self, "relates_to", tuple(self.relates_to))
        object.__setattr__(self, "metadata", dict(self.metadata))
        _check_words(self)
        _check_shape(self)
        _check_legs(self)
        _check_counted(self)

    @property
    def payload_hash(self) -> bytes:
        """SHA-256 of what the posting says happened. The order of legs and relations does not matter."""
        content = {
            "template": self.template,
            "phase": self.phase,
            "legs": sorted((leg.account_id, leg.amount_msat) for leg in self.legs),
            "relates_to": sorted(self.relates_to),
            "metadata": dict(self.metadata),
            "effective_on": self.effective_on and self.effective_on.isoformat(),
            "expires_at": self.expires_at and self.expires_at.astimezone(UTC).isoformat(),
            "velocity": None,  # part of every hash since the first release; counts are no part of the content
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(canonical.encode()).digest()


def _check_words(posting: Posting) -> None:
    if not all(0 < len(word) <= MAX_WORD for word in (posting.ref, posting.template, posting.actor)):
        raise _broken(posting, f"reference, template and actor are 1 to {MAX_WORD} characters each")
    if any(type(fact) not in (str, int, bool, type(None)) for fact in posting.metadata.values()):
        raise _broken(posting, "metadata holds text, whole numbers, true, false and null only")
    if posting.expires_at is not None and (posting.phase != "hold" or posting.expires_at.tzinfo is None):
        raise _broken(posting, "only a hold expires, at a time with a time zone")


def _check_shape(posting: Posting) -> None:
    related = len(posting.relates_to)
    needs_legs, related_min, related_max = _SHAPES[posting.phase]
    if bool(posting.legs) != needs_legs or not related_min <= related <= related_max:
        raise _broken(posting, f"{posting.phase} cannot have {len(posting.legs)} legs and relate to {related}")
    if len(set(posting.relates_to)) != related:
        raise _broken(posting, "relates to one transfer twice")


def _check_legs(posting: Posting) -> None:
    if len(posting.legs) > MAX_LEGS:
        raise _broken(posting, f"more than {MAX_LEGS} legs")
    if any(leg.amount_msat == 0 or abs(leg.amount_msat) > MAX_LEG_MSAT for leg in posting.legs):
        raise _broken(posting, "a leg of zero, or of more than there is")
    if len({leg.account_id for leg in posting.legs}) != len(posting.legs):
        raise _broken(posting, "an account has two legs")
    if difference := sum(leg.amount_msat for leg in posting.legs):
        raise _broken(posting, f"debits and credits differ by {difference}")


def _check_counted(posting: Posting) -> None:
    counted = posting.counted
    if counted is None:
        return
    kinds = [count.kind for count in counted.counts]
    if posting.phase not in ("post", "hold") or not 0 < len(set(kinds)) == len(kinds) <= MAX_COUNTS:
        raise _broken(posting, f"only a post or a hold counts towards limits, under 1 to {MAX_COUNTS} kinds, each once")
    if counted.account_id not in {leg.account_id for leg in posting.legs}:
        raise _broken(posting, "what counts towards limits counts on an account that has a leg")
    for count in counted.counts:
        if not 0 < len(count.kind) <= MAX_WORD or not 0 < count.amount <= MAX_LEG_MSAT:
            raise _broken(posting, "what counts has a named kind and an amount above zero")
        if any(most < 0 or window_s not in WINDOWS.values() for window_s, most in count.maxima.items()):
            raise _broken(posting, "a maximum is a number from zero on, for a window that is counted")


def _positive(amount_msat: int) -> int:
    if type(amount_msat) is not int or not 0 < amount_msat <= MAX_LEG_MSAT:
        raise InvariantBroken(f"{amount_msat!r} is no amount for a leg: whole, above zero, at most all bitcoin")
    return amount_msat


def _broken(posting: Posting, why: str) -> InvariantBroken:
    return InvariantBroken(f"posting {posting.ref!r}: {why}", reference=posting.ref)
