"""Quote: the use case, for any door. What a payment would cost; nothing is held or promised.

    internal     exact       our fee, by the schedule in force
    lightning    probe       our fee, and the fee of a route that has just reached the payee
                 estimate    our fee, and the fee of a route on the node's map; without one, the default routing cap

A node is asked for the routing fee (`quote_run.py`), which is cached for a minute. The server of a lightning address or
LNURL outside is asked for its offer and for no invoice, so there the estimate is the default routing cap.

`max_fee_msat` is for the payment, which then costs no more, or is refused or fails. Amount and `max_fee_msat` together
are what the payment holds and counts towards limits; where they do not fit, the quote has a warning. Schedule and
network may change between the quote and the payment. An invoice that cannot be paid any more is refused here as it
would be there.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from api.service.auth import Caller
from api.service.destination import Resolved, amount_to_pay, resolve
from api.service.payment_cost import service_fee
from api.service.quote.answer import TOO_DEAR, QuoteOut, WarningOut, warning
from api.service.quote.quote_run import GOOD_FOR, Route, RoutingFee, quote_route
from api.service.resources import Resources
from engine.bank.account.account import find_payees
from engine.bank.limit import Payer, find_excess, get_payer
from engine.bank.payable import require_payable
from engine.domain.ids import ApiKeyId, WalletId
from engine.domain.limit import exceeded
from engine.domain.money import Msat
from engine.domain.routing_cap import default_routing_cap, highest_routing_cap


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteOrder:
    """The payment that a quote is wanted for."""

    wallet_id: WalletId
    destination: str
    amount_msat: Msat | None = None
    """Required where the destination names no amount."""


async def quote(resources: Resources, caller: Caller, order: QuoteOrder) -> QuoteOut:
    """What the payment would cost now. Raises what the payment would raise, as far as that is known before it."""
    async with resources.reading() as conn:
        payer = await get_payer(conn, caller.account_id, order.wallet_id, ApiKeyId(caller.key_id))
    resolved = await resolve(resources, order.destination)
    amount_msat = amount_to_pay(resolved, order.wallet_id, order.amount_msat)
    if resolved.request is not None:
        async with resources.reading() as conn:
            await require_payable(conn, resolved.request.payment_hash)
    await _require_open(resources, payer, resolved)
    ours_msat = await service_fee(
        resources, payer, "internal" if resolved.is_internal else "lightning_out", amount_msat
    )
    routing = await _routing_fee(resources, payer, resolved, amount_msat)
    counted_msat = Msat(amount_msat + ours_msat + routing.cap_msat)
    return QuoteOut(
        kind=resolved.kind,
        amount_msat=amount_msat,
        fee_msat=ours_msat + routing.fee_msat,
        fee_source=routing.source,
        max_fee_msat=ours_msat + routing.cap_msat,
        counted_msat=counted_msat,
        expires_at=min(routing.expires_at, resolved.invoice.expires_at) if resolved.invoice else routing.expires_at,
        warning=await _limit_warning(resources, payer, resolved, counted_msat) or warning(routing.trouble),
    )


async def _routing_fee(resources: Resources, payer: Payer, resolved: Resolved, amount_msat: Msat) -> RoutingFee:
    if route := None if resolved.is_internal else _route(resolved, amount_msat):
        told = await quote_route(resources, route)
        book = await resources.limits.get(resources.pool, payer.limits_version)
        highest_msat = highest_routing_cap(amount_msat, book.max_fee_factor)
        trouble = told.trouble if told.fee_msat <= highest_msat else TOO_DEAR
        return replace(told, cap_msat=min(told.cap_msat, highest_msat), trouble=trouble)
    expires_at = datetime.now(UTC) + GOOD_FOR
    if resolved.is_internal:
        return RoutingFee(fee_msat=Msat(0), cap_msat=Msat(0), source="exact", expires_at=expires_at)
    cap_msat = default_routing_cap(amount_msat)
    return RoutingFee(fee_msat=cap_msat, cap_msat=cap_msat, source="estimate", expires_at=expires_at)


def _route(resolved: Resolved, amount_msat: Msat) -> Route | None:
    """None for an offer, which does not tell which node would be paid."""
    if resolved.payee_node is not None:
        return Route(payee=resolved.payee_node, amount_msat=amount_msat)
    invoice = resolved.invoice
    if invoice is None:
        return None
    return Route(payee=invoice.payee, amount_msat=amount_msat, bolt11=invoice.bolt11, hints=invoice.route_hints)


async def _require_open(resources: Resources, payer: Payer, resolved: Resolved) -> None:
    """Raises Refused as the payment would: `account_locked`, `payee_closed`."""
    async with resources.reading() as conn:
        payees = await find_payees(conn, [resolved.wallet_id] if resolved.wallet_id else [])
    payer.require_active()
    for payee in payees.values():
        payee.require_open()


async def _limit_warning(
    resources: Resources, payer: Payer, resolved: Resolved, counted_msat: Msat
) -> WarningOut | None:
    async with resources.reading() as conn:
        excess = await find_excess(conn, resources.limits, payer, resolved.kind, counted_msat)
    if excess is None:
        return None
    code, detail, _fields = exceeded(excess)
    return WarningOut(code=code, detail=detail)
