"""What would a payment cost? Nothing is held, promised or asked of a node.

    internal     exact       our fee, by the schedule in force
    lightning    estimate    our fee, and for the network the most that it may take by default

Of a lightning address or LNURL outside, its server is asked what it takes, and for no invoice.

A quote binds nobody: between it and the payment the schedule may change. Who sends its `max_fee_msat` with the payment
pays no more than that, or is refused.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from api.body import AmountMsat, Body, Content, Id, JsonBody, Text, documented
from api.deps import Caller, Services, get_services, needs
from api.destination import Resolved, amount_to_pay, resolve
from api.errors import problems
from api.idempotency import optional_key
from api.wallet import own_wallet
from engine.domain.destinations import MAX_LENGTH
from engine.domain.errors import Invalid, InvariantBroken
from engine.domain.fees import Kind, default_routing_cap, fee, parse_schedule
from engine.domain.ids import AccountId
from engine.domain.money import Msat
from engine.ledger.accounts import find_account
from engine.ledger.rulebook import read_current

router = APIRouter(tags=["payments"])
_GOOD_FOR = timedelta(seconds=60)

FeeSource = Literal["exact", "probe", "estimate"]


class QuoteIn(Content):
    """The payment to be."""

    wallet_id: Id
    destination: Annotated[Text, Field(min_length=1, max_length=MAX_LENGTH)]
    amount_msat: AmountMsat | None = Field(default=None, description="Required where the destination names none.")


class QuoteOut(BaseModel):
    """What it would cost beside the amount."""

    kind: Literal["internal", "lightning"]
    amount_msat: int
    fee_msat: int = Field(description="Our fee and what the network is expected to take.", examples=[5_100])
    fee_source: FeeSource = Field(
        description="exact: it is this; probe: a node has tried the way; estimate: it is at most this, by default"
    )
    max_fee_msat: int = Field(description="To be sent with the payment as its cap.", examples=[5_100])
    expires_at: datetime = Field(description="Ask again after this.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingFee:
    """What the network is expected to take, the cap to give it, and how we know."""

    fee_msat: Msat
    cap_msat: Msat
    source: FeeSource


@router.post(
    "/v1/payments/quote",
    summary="Quote a payment",
    responses=problems(
        *("forbidden", "not_found", "invalid_request", "request_too_large", "invalid_destination", "wrong_network"),
        *("use_withdrawals", "invoice_expired", "amount_required", "amount_mismatch", "amount_too_small"),
        *("self_payment", "destination_unavailable"),
    ),
    openapi_extra=documented(
        QuoteIn,
        to_a_user={"wallet_id": "wal_…", "destination": "@bob", "amount_msat": 12_500_000},
        an_invoice={"wallet_id": "wal_…", "destination": "lnbcrt…"},
    ),
)
async def quote(
    caller: Annotated[Caller, Depends(needs("read"))],
    _key: Annotated[str | None, Depends(optional_key)],
    body: Annotated[Body[QuoteIn], Depends(JsonBody(QuoteIn))],
    services: Annotated[Services, Depends(get_services)],
) -> QuoteOut:
    """Scope: `read`. Changes nothing, so an Idempotency-Key is accepted and not kept."""
    asked = body.content
    async with services.reading() as conn:
        await own_wallet(conn, caller.account_id, asked.wallet_id)
    resolved = await resolve(services, asked.destination)
    if resolved.wallet_id == asked.wallet_id:
        raise Invalid("The destination is the wallet that would pay it.", code="self_payment")
    now = datetime.now(UTC)
    given = None if asked.amount_msat is None else Msat(asked.amount_msat)
    amount_msat = amount_to_pay(resolved, given, now)
    routing = _routing_fee(resolved, amount_msat)
    ours_msat = await _our_fee(
        services, caller.account_id, "internal" if resolved.is_ours else "lightning_out", amount_msat
    )
    expires_at = now + _GOOD_FOR
    return QuoteOut(
        kind="internal" if resolved.is_ours else "lightning",
        amount_msat=amount_msat,
        fee_msat=ours_msat + routing.fee_msat,
        fee_source=routing.source,
        max_fee_msat=ours_msat + routing.cap_msat,
        expires_at=min(expires_at, resolved.invoice.expires_at) if resolved.invoice else expires_at,
    )


def _routing_fee(resolved: Resolved, amount_msat: Msat) -> RoutingFee:
    """No way is looked for: the network may take what it may take by default."""
    if resolved.is_ours:
        return RoutingFee(fee_msat=Msat(0), cap_msat=Msat(0), source="exact")
    cap_msat = default_routing_cap(amount_msat)
    return RoutingFee(fee_msat=cap_msat, cap_msat=cap_msat, source="estimate")


async def _our_fee(services: Services, account_id: AccountId, kind: Kind, amount_msat: Msat) -> Msat:
    async with services.reading() as conn:
        account = await find_account(conn, account_id)
        current = await read_current(conn, "fees")
    if account is None:
        raise InvariantBroken(f"there is no account {account_id}")
    return fee(parse_schedule(current.content), kind, amount_msat, account.level)
