"""What would a payment cost? Nothing is held or promised.

    internal     exact       our fee, by the schedule in force
    lightning    probe       our fee, and what a way took that reached the payee a moment ago
                 estimate    our fee, and what the node's map says; where it says nothing, what the network may take

A lightning network fee is asked of a node (quote_run.py) and remembered for a minute. Of a lightning address or LNURL
outside, its server is asked what it takes, and for no invoice, so there the estimate is the most that is allowed.

`max_fee_msat` is what to send with the payment, which then costs no more than that, or is refused or fails. Amount and
`max_fee_msat` together are what it holds and counts towards limits; where they do not fit, the quote warns. A quote
binds nobody otherwise: between it and the payment the schedule and the network may change. An invoice that cannot be
paid any more is refused here as it would be there.
"""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from api.access import get_resources, needs
from api.http.body import AmountMsat, Body, Content, Id, JsonBody, Text, documented
from api.http.errors import problems
from api.http.idempotency_key import optional_key
from api.service.auth import Caller, no_such
from api.service.destination import Resolved, amount_to_pay, resolve
from api.service.quote_run import GOOD_FOR, UNANSWERED, UNTOLD, FeeSource, RoutingFee, Way, quote_route
from api.service.resources import Resources
from api.user.fees import our_fee
from engine.bank.accounts import find_payees, may_not_send, payee_closed
from engine.bank.limits import Payer, find_excess, find_payer
from engine.bank.payable import require_payable
from engine.domain.destinations import MAX_LENGTH
from engine.domain.errors import Invalid
from engine.domain.ids import ApiKeyId, WalletId
from engine.domain.limits import Kind, exceeded
from engine.domain.money import Msat
from engine.domain.routing_cap import default_routing_cap, highest_routing_cap

router = APIRouter(tags=["payments"])

_TOO_DEAR = "fee_limit_exceeded"
_WARNINGS = {
    "no_route": "No way is known that carries this amount to the payee in one part; in several parts it may pass.",
    "insufficient_liquidity": "No channel of ours can send this amount in one part now.",
    "payment_timeout": "No way was found to work within a few seconds.",
    UNANSWERED: "A probe was sent and has not come back: the payee, or a node on the way, may keep payments.",
    UNTOLD: "No node of ours could be asked.",
    _TOO_DEAR: "The known route costs more than the highest max_fee_msat that this bank allows.",
}
_LIMITS = ("limit_exceeded", "spend_limit_exceeded")


class QuoteIn(Content):
    """The payment to be."""

    wallet_id: Id
    destination: Annotated[Text, Field(min_length=1, max_length=MAX_LENGTH)]
    amount_msat: AmountMsat | None = Field(default=None, description="Required where the destination names none.")


class WarningOut(BaseModel):
    """Why the payment may fail or be refused now. It may be tried all the same."""

    code: str = Field(description=", ".join([*_WARNINGS, *_LIMITS]))
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
    counted_msat: int = Field(
        description="Amount and `max_fee_msat`: what the payment holds, and counts towards limits until it is settled.",
        examples=[105_100],
    )
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
        "invoice_refused_by_node",
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
    resources: Annotated[Resources, Depends(get_resources)],
) -> QuoteOut:
    """Scope: `read`. Changes nothing, so an Idempotency-Key is accepted and not kept.

    A warning `limit_exceeded` or `spend_limit_exceeded` says that amount and `max_fee_msat` together are more than the
    limits leave now: such a payment would be refused.
    """
    asked = body.content
    async with resources.reading() as conn:
        payer = await find_payer(conn, caller.account_id, WalletId(asked.wallet_id), ApiKeyId(caller.key_id))
    if payer is None:
        raise no_such("wallet")
    resolved = await resolve(resources, asked.destination)
    if resolved.wallet_id == asked.wallet_id:
        raise Invalid("The destination is the wallet that would pay it.", code="self_payment")
    now = datetime.now(UTC)
    given = None if asked.amount_msat is None else Msat(asked.amount_msat)
    amount_msat = amount_to_pay(resolved, given, now)
    if resolved.request is not None:
        async with resources.reading() as conn:
            await require_payable(conn, resolved.request.payment_hash)
    await _require_open(resources, payer, resolved)
    kind: Kind = "internal" if resolved.is_ours else "lightning"
    ours_msat = await our_fee(resources, payer, "internal" if resolved.is_ours else "lightning_out", amount_msat)
    routing = await _routing_fee(resources, payer, resolved, amount_msat)
    counted_msat = Msat(amount_msat + ours_msat + routing.cap_msat)
    return QuoteOut(
        kind=kind,
        amount_msat=amount_msat,
        fee_msat=ours_msat + routing.fee_msat,
        fee_source=routing.source,
        max_fee_msat=ours_msat + routing.cap_msat,
        counted_msat=counted_msat,
        expires_at=min(routing.expires_at, resolved.invoice.expires_at) if resolved.invoice else routing.expires_at,
        warning=await _limit_warning(resources, payer, kind, counted_msat) or _warning(routing.trouble),
    )


async def _routing_fee(resources: Resources, payer: Payer, resolved: Resolved, amount_msat: Msat) -> RoutingFee:
    if way := None if resolved.is_ours else _way(resolved, amount_msat):
        told = await quote_route(resources, way)
        book = await resources.limits.get(resources.pool, payer.limits_version)
        highest_msat = highest_routing_cap(amount_msat, book.max_fee_factor)
        trouble = told.trouble if told.fee_msat <= highest_msat else _TOO_DEAR
        return replace(told, cap_msat=min(told.cap_msat, highest_msat), trouble=trouble)
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


async def _require_open(resources: Resources, payer: Payer, resolved: Resolved) -> None:
    """Raises Refused as the payment would: `account_locked`, `payee_closed`."""
    async with resources.reading() as conn:
        payees = await find_payees(conn, [resolved.wallet_id] if resolved.wallet_id else [])
    if payer.status != "active":
        raise may_not_send(payer.status)
    if any(payee.status == "closed" for payee in payees.values()):
        raise payee_closed()


async def _limit_warning(resources: Resources, payer: Payer, kind: Kind, counted_msat: Msat) -> WarningOut | None:
    async with resources.reading() as conn:
        excess = await find_excess(conn, resources.limits, payer, kind, counted_msat)
    if excess is None:
        return None
    code, detail, _fields = exceeded(excess)
    return WarningOut(code=code, detail=detail)


def _warning(trouble: str | None) -> WarningOut | None:
    return WarningOut(code=trouble, detail=_WARNINGS[trouble]) if trouble else None
