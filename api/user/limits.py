"""Limits: how much may still leave an account, and what operators say about it.

The ledger counts and refuses in the transaction that holds or moves the money; here it is shown, and here operators put
the next version of the rulebook in force.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from api.access import get_resources, needs, needs_role
from api.http.body import Body, Content, JsonBody, Text, documented
from api.http.errors import problems
from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY
from api.service.rulebook import set_edition
from engine.bank.limits import find_payer, read_used
from engine.bank.prices import read_prices
from engine.bank.rulebook import Edition, read_current
from engine.domain.errors import Invalid, InvariantBroken
from engine.domain.ids import ApiKeyId
from engine.domain.limits import WINDOWS, Limit, LimitBook, Window, key_counter, parse_limits
from engine.domain.money import Sat, fiat_text, sat_to_msat
from engine.ledger.database import Connection

router = APIRouter()
Read = Annotated[Caller, Depends(needs("read"))]
Finance = Annotated[Caller, Depends(needs_role(*MAY["set limits"]))]
Res = Annotated[Resources, Depends(get_resources)]

Used = Mapping[tuple[str, Window], int]
_KEY = "api_key"
_EXAMPLE = {
    "levels": {
        "0": {
            "internal": {"day_sat": 2_000_000},
            "lightning": {"day_sat": 1_000_000, "month_sat": 10_000_000, "day": {"USD": "1000.00"}},
        }
    },
    "max_fee_factor": 20,
}


class LimitOut(BaseModel):
    """One limit and how much of it is used."""

    kind: str = Field(description="internal, lightning, or api_key: what this key may spend", examples=["lightning"])
    window: Window = Field(description="the last 24 hours, 7 days or 30 days")
    window_s: int = Field(examples=[86_400])
    limit_msat: int = Field(examples=[1_000_000_000])
    used_msat: int = Field(
        description="What has left, fees included, plus what pending payments hold. Failed ones do not count.",
        examples=[250_000],
    )
    remaining_msat: int = Field(description="Never below zero, also when a limit was lowered.", examples=[999_750_000])


class FiatLimitOut(BaseModel):
    """One limit in another currency; each payment counts at the price of its moment."""

    kind: str = Field(examples=["lightning"])
    window: Window
    window_s: int
    currency: str = Field(examples=["USD"])
    limit: str = Field(examples=["1000.00"])
    used: str = Field(examples=["12.345678"])
    remaining: str = Field(examples=["987.654322"])


class LimitsOut(BaseModel):
    """Every limit that applies to payments with this key. What is not named is not limited."""

    items: list[LimitOut | FiatLimitOut]
    max_fee_factor: int = Field(
        description="`max_fee_msat` may be at most this many times the usual routing cap (1 % of the amount, and at "
        "least 5,000 msat), plus our fee.",
        examples=[20],
    )


class RulebookIn(Content):
    """The next version of the limits."""

    content: dict[str, Any] = Field(
        description="By level and kind: `day_sat`, `week_sat`, `month_sat`, and per window amounts in other "
        "currencies. `max_fee_factor` (20 by default): how many times the usual routing cap a payer may allow."
    )
    note: Annotated[Text, Field(min_length=1, max_length=1000, pattern=r"\S")] = Field(
        description="Why; kept for ever."
    )
    version: Annotated[int, Field(ge=2, le=2**31 - 1)] = Field(description="The one in force, plus one.")


class RulebookOut(BaseModel):
    """The limits in force."""

    version: int
    content: dict[str, Any] = Field(examples=[_EXAMPLE])
    note: str
    set_by: str
    created_at: datetime


@router.get("/v1/limits", tags=["accounts"], summary="Show your limits", responses=problems("forbidden"))
async def show_limits(caller: Read, resources: Res) -> LimitsOut:
    """Scope: `read`. What may leave the account within rolling windows, and what this key may spend.

    While it is pending, a payment counts all that it may take: amount and `max_fee_msat`. Once it is settled it counts
    amount and `fee_msat`; one that failed counts nothing. Exactly the limit passes: a payment of all that remains needs
    a `max_fee_msat` of 0. What has left a window frees its part within a 96th of it.
    """
    async with resources.reading() as conn:
        payer = await find_payer(conn, caller.account_id, None, ApiKeyId(caller.key_id))
        if payer is None:
            raise InvariantBroken(f"{caller.account_id} has no wallet")
        book = await resources.limits.get(conn, payer.limits_version)
        limits = book.of_level(payer.level)
        caps = caller.spend_limit_sat or {}
        counters = sorted(
            {limit.counter for limit in limits} | ({key_counter(ApiKeyId(caller.key_id))} if caps else set())
        )
        used = await read_used(conn, payer.ledger_account_id, counters)
    items = [*_level_items(limits, used), *_key_items(ApiKeyId(caller.key_id), caps, used)]
    return LimitsOut(items=items, max_fee_factor=book.max_fee_factor)


@router.get(
    "/v1/admin/limits",
    tags=["operators"],
    summary="Show the limits in force",
    responses=problems("forbidden"),
)
async def show_rulebook(_caller: Finance, resources: Res) -> RulebookOut:
    """Role: `finance`."""
    async with resources.reading() as conn:
        return _shown(await read_current(conn, "limits"))


@router.put(
    "/v1/admin/limits",
    tags=["operators"],
    summary="Set the limits",
    responses=problems("forbidden", "invalid_request", "version_conflict", "request_too_large"),
    openapi_extra=documented(
        RulebookIn, stricter={"content": _EXAMPLE, "note": "as the board decided in May", "version": 3}
    ),
)
async def set_rulebook(
    caller: Finance, resources: Res, body: Annotated[Body[RulebookIn], Depends(JsonBody(RulebookIn))]
) -> RulebookOut:
    """Role: `finance`. In force at once, for every process; older versions are kept.

    The whole content is replaced. A level without an entry has that of the nearest lower one. What was counted stays
    counted: a limit below what is used lets nothing pass until enough has left its window. A currency needs a price
    first. The same again from the same operator is a repeat, and gets the version as it is.
    """
    asked = body.content
    book = parse_limits(asked.content)
    async with resources.reading() as conn:
        await _require_known_currencies(conn, book)
    return _shown(await set_edition(resources, caller, "limits", asked.content, version=asked.version, note=asked.note))


async def _require_known_currencies(conn: Connection, book: LimitBook) -> None:
    """So that whoever opens a payment always finds a price, however old."""
    missing = sorted(book.all_currencies() - set(await read_prices(conn, book.all_currencies())))
    if missing:
        raise Invalid(
            f"There never was a price in {missing[0]}: set one first, with PUT /v1/admin/prices/{missing[0]}.",
            field="content",
        )


def _shown(edition: Edition) -> RulebookOut:
    return RulebookOut(
        version=edition.version,
        content=edition.content,
        note=edition.note,
        set_by=edition.set_by,
        created_at=edition.created_at,
    )


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
