"""What would a payment cost? Nothing is held or promised.

    internal     exact       our fee, by the schedule in force
    lightning    probe       our fee, and what a way took that reached the payee a moment ago
                 estimate    our fee, and what the node's map says; where it says nothing, what the network may take

A lightning network fee is asked of a node (quote_run.py) and remembered for a minute. Of a lightning address or LNURL
outside, its server is asked what it takes, and for no invoice, so there the estimate is the most that is allowed.

`max_fee_msat` is what to send with the payment, which then costs no more than that, or is refused or fails. A quote
binds nobody otherwise: between it and the payment the schedule and the network may change. An invoice that cannot be
paid any more is refused here as it would be there.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from api.body import AmountMsat, Body, Content, Id, JsonBody, Text, documented
from api.deps import Caller, Services, get_services, needs
from api.destination import Resolved, amount_to_pay, resolve
from api.errors import problems
from api.idempotency import optional_key
from api.quote_run import GOOD_FOR, UNANSWERED, UNTOLD, FeeSource, RoutingFee, Way, quote_route
from api.wallet import own_wallet
from engine.domain.destinations import MAX_LENGTH
from engine.domain.errors import Invalid, InvariantBroken
from engine.domain.fees import Kind, default_routing_cap, fee, parse_schedule
from engine.domain.ids import AccountId
from engine.domain.money import Msat
from engine.ledger.accounts import find_account, find_payees, may_not_send, payee_closed
from engine.ledger.payable import require_payable
from engine.ledger.rulebook import read_current

router = APIRouter(tags=["payments"])

_WARNINGS = {
    "no_route": "No way is known that carries this amount to the payee in one part; in several parts it may pass.",
    "insufficient_liquidity": "No channel of ours can send this amount in one part now.",
    "payment_timeout": "No way was found to work within a few seconds.",
    UNANSWERED: "A probe was sent and has not come back: the payee, or a node on the way, may keep payments.",
    UNTOLD: "No node of ours could be asked.",
}


class QuoteIn(Content):
    """The payment to be."""

    wallet_id: Id
    destination: Annotated[Text, Field(min_length=1, max_length=MAX_LENGTH)]
    amount_msat: AmountMsat | None = Field(default=None, description="Required where the destination names none.")


class WarningOut(BaseModel):
    """What speaks against the payment going through now. It may be tried all the same."""

    code: str = Field(description=", ".join(_WARNINGS))
    detail: str


class QuoteOut(BaseModel):
    """What it would cost beside the amount."""

    kind: Literal["internal", "lightning"]
    amount_msat: int
    fee_msat: int = Field(description="Our fee and what the network is expected to take.", examples=[5_100])
    fee_source: FeeSource = Field(
        description="exact: it is this; probe: a way of this fee has just been tried; estimate: by a node's map, or "
        "else the most that is allowed"
    )
    max_fee_msat: int = Field(description="To be sent with the payment as its cap.", examples=[5_100])
    expires_at: datetime = Field(description="Ask again after this; until then the network's part stays the same.")
    warning: WarningOut | None = None


@router.post(
    "/v1/payments/quote",
    summary="Quote a payment",
    responses=problems(
        *("forbidden", "not_found", "invalid_request", "request_too_large", "invalid_destination", "wrong_network"),
        *("use_withdrawals", "invoice_expired", "amount_required", "amount_mismatch", "amount_too_small"),
        *("self_payment", "destination_unavailable", "account_locked", "payee_closed", "keysend_disabled"),
        *("invoice_already_paid", "payment_in_progress", "invoice_cancelled", "invoice_unpayable"),
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
    if resolved.request is not None:
        async with services.reading() as conn:
            await require_payable(conn, resolved.request.payment_hash)
    ours_msat = await _our_fee(services, caller.account_id, resolved, amount_msat)
    routing = await _routing_fee(services, resolved, amount_msat)
    return QuoteOut(
        kind="internal" if resolved.is_ours else "lightning",
        amount_msat=amount_msat,
        fee_msat=ours_msat + routing.fee_msat,
        fee_source=routing.source,
        max_fee_msat=ours_msat + routing.cap_msat,
        expires_at=min(routing.expires_at, resolved.invoice.expires_at) if resolved.invoice else routing.expires_at,
        warning=WarningOut(code=routing.trouble, detail=_WARNINGS[routing.trouble]) if routing.trouble else None,
    )


async def _routing_fee(services: Services, resolved: Resolved, amount_msat: Msat) -> RoutingFee:
    if way := None if resolved.is_ours else _way(resolved, amount_msat):
        return await quote_route(services, way)
    expires_at = datetime.now(UTC) + GOOD_FOR
    if resolved.is_ours:
        return RoutingFee(fee_msat=Msat(0), cap_msat=Msat(0), source="exact", expires_at=expires_at)
    cap_msat = default_routing_cap(amount_msat)
    return RoutingFee(fee_msat=cap_msat, cap_msat=cap_msat, source="estimate", expires_at=expires_at)


def _way(resolved: Resolved, amount_msat: Msat) -> Way | None:
    """None where an offer does not tell yet which node would be paid."""
    if resolved.payee_node is not None:
        return Way(payee=resolved.payee_node, amount_msat=amount_msat)
    invoice = resolved.invoice
    if invoice is None:
        return None
    return Way(payee=invoice.payee, amount_msat=amount_msat, bolt11=invoice.bolt11, hints=invoice.route_hints)


async def _our_fee(services: Services, account_id: AccountId, resolved: Resolved, amount_msat: Msat) -> Msat:
    """By the schedule in force. Raises Refused as the payment would: `account_locked`, `payee_closed`."""
    async with services.reading() as conn:
        account = await find_account(conn, account_id)
        payees = await find_payees(conn, [resolved.wallet_id] if resolved.wallet_id else [])
        current = await read_current(conn, "fees")
    if account is None:
        raise InvariantBroken(f"there is no account {account_id}")
    if account.status != "active":
        raise may_not_send(account.status)
    if any(payee.status == "closed" for payee in payees.values()):
        raise payee_closed()
    kind: Kind = "internal" if resolved.is_ours else "lightning_out"
    return fee(parse_schedule(current.content), kind, amount_msat, account.level)
