"""How much of its limits an account has used, and how much may still leave it or come in. The use case, for any door.

The books count and refuse in the transaction that holds or moves the money; here it is only shown.
"""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, Field

from api.service.auth import Caller
from api.service.resources import Resources
from engine.bank.limit import find_payer, read_used
from engine.domain.errors import InvariantBroken
from engine.domain.ids import ApiKeyId
from engine.domain.limit import WINDOWS, Limit, Window, key_counter
from engine.domain.money import Sat, fiat_text, sat_to_msat

Used = Mapping[tuple[str, Window], int]
_KEY = "api_key"


class LimitOut(BaseModel):
    """One limit and how much of it is used."""

    kind: str = Field(
        description="internal, lightning: payments that leave; withdrawal: what leaves on chain; deposit: what comes "
        "in on chain; api_key: what this key may spend",
        examples=["lightning"],
    )
    window: Window = Field(description="the last 24 hours, 7 days or 30 days")
    window_s: int = Field(examples=[86_400])
    limit_msat: int = Field(examples=[1_000_000_000])
    used_msat: int = Field(
        description="What has left, fees included, plus what pending payments hold. Failed payments do not count. Of "
        "deposits: what has been credited, plus what is incoming.",
        examples=[250_000],
    )
    remaining_msat: int = Field(description="Never below zero, even after a limit was lowered.", examples=[999_750_000])


class FiatLimitOut(BaseModel):
    """One limit in another currency. Each payment and each deposit counts at the price of its time."""

    kind: str = Field(examples=["lightning"])
    window: Window
    window_s: int
    currency: str = Field(examples=["USD"])
    limit: str = Field(examples=["1000.00"])
    used: str = Field(examples=["12.345678"])
    remaining: str = Field(examples=["987.654322"])


class LimitsOut(BaseModel):
    """Every limit that applies to payments and withdrawals with this key, and to deposits. Whatever is not named is not
    limited."""

    items: list[LimitOut | FiatLimitOut]
    max_fee_factor: int = Field(
        description="`max_fee_msat` may be at most this many times the usual routing cap (1 % of the amount, and at "
        "least 5,000 msat), plus our fee.",
        examples=[20],
    )


async def show_limits(resources: Resources, caller: Caller) -> LimitsOut:
    """The limits of the caller's account, and of its key."""
    caller.require("read")
    key_id, caps = ApiKeyId(caller.key_id), caller.spend_limit_sat or {}
    async with resources.reading() as conn:
        payer = await find_payer(conn, caller.account_id, None, key_id)
        if payer is None:
            raise InvariantBroken(f"{caller.account_id} has no wallet")
        book = await resources.limits.get(conn, payer.limits_version)
        limits = book.of_level(payer.level)
        counters = {limit.counter for limit in limits} | ({key_counter(key_id)} if caps else set())
        used = await read_used(conn, payer.ledger_account_id, sorted(counters))
    items = [*_level_items(limits, used), *_key_items(key_id, caps, used)]
    return LimitsOut(items=items, max_fee_factor=book.max_fee_factor)


def _level_items(limits: Sequence[Limit], used: Used) -> list[LimitOut | FiatLimitOut]:
    return [
        _item(limit.kind, limit.window, limit.amount, used[limit.counter, limit.window])
        if limit.currency is None
        else _fiat_item(limit, limit.currency, used[limit.counter, limit.window])
        for limit in limits
    ]


def _key_items(key_id: ApiKeyId, caps: Mapping[Window, Sat], used: Used) -> list[LimitOut]:
    counter = key_counter(key_id)
    return [
        _item(_KEY, window, sat_to_msat(caps[window]), used[counter, window]) for window in WINDOWS if window in caps
    ]


def _item(kind: str, window: Window, limit_msat: int, used_msat: int) -> LimitOut:
    return LimitOut(
        kind=kind,
        window=window,
        window_s=WINDOWS[window],
        limit_msat=limit_msat,
        used_msat=used_msat,
        remaining_msat=max(0, limit_msat - used_msat),
    )


def _fiat_item(limit: Limit, currency: str, used_micro: int) -> FiatLimitOut:
    return FiatLimitOut(
        kind=limit.kind,
        window=limit.window,
        window_s=WINDOWS[limit.window],
        currency=currency,
        limit=fiat_text(limit.amount),
        used=fiat_text(used_micro),
        remaining=fiat_text(max(0, limit.amount - used_micro)),
    )
