"""An order checked, as the request that the payment's workflow is started with."""

from api.service.destination import (
    Resolved,
    amount_to_pay,
    refuse_self_payment,
    resolve,
    resolve_internal,
    with_invoice,
)
from api.service.fresh_price import require_fresh_prices
from api.service.payment.order import Facts, PaymentOrder, PlacedOrder
from api.service.payment_cost import require_max_fee
from api.service.resources import Resources
from engine.bank.node.node_choice import find_live_sender
from engine.contracts.payment import PaymentRequest
from engine.domain.errors import Unavailable
from engine.domain.money import Msat
from engine.domain.routing_cap import default_routing_cap


async def check(resources: Resources, placed: PlacedOrder, facts: Facts) -> tuple[Resolved, PaymentRequest]:
    """What the destination names, and the request with every default made explicit. Raises what a caller can mend."""
    order, payer = placed.order, facts.require_payer()
    resolved = resolve_internal(order.destination, placed.destination, facts.payees)
    if resolved is None:
        resolved = await resolve(resources, order.destination)
        resolved = await with_invoice(resources, resolved, order.amount_msat, order.memo)
    refuse_self_payment(resolved.wallet_id, order.wallet_id)
    amount_msat = amount_to_pay(resolved, order.amount_msat)
    if not resolved.is_internal:
        if order.max_fee_msat is not None:
            await require_max_fee(resources, payer, amount_msat, order.max_fee_msat)
        await _require_live_node(resources, amount_msat)
    await require_fresh_prices(resources, payer, resolved.kind)
    return resolved, _request(placed, resolved, amount_msat)


def _request(placed: PlacedOrder, resolved: Resolved, amount_msat: Msat) -> PaymentRequest:
    order, invoice = placed.order, resolved.request
    return PaymentRequest(
        payment_id=placed.payment_id,
        account_id=placed.account_id,
        wallet_id=order.wallet_id,
        idempotency_key=order.key,
        body_hash=order.body_hash.hex(),
        destination=resolved.text,
        payee_wallet_id=resolved.wallet_id if invoice is None else None,
        bolt11=invoice.bolt11 if invoice else None,
        payee_node=resolved.payee_node,
        success_action=resolved.success_action,
        payment_hash=invoice.payment_hash if invoice else None,
        amount_in_invoice=invoice is not None and invoice.amount_msat is not None,
        amount_msat=amount_msat,
        max_fee_msat=_max_fee(order, resolved, amount_msat),
        memo=order.memo,
        external_id=order.external_id,
        fee_cap_msat=order.max_fee_msat,
        api_key_id=placed.api_key_id,
    )


def _max_fee(order: PaymentOrder, resolved: Resolved, amount_msat: Msat) -> Msat:
    if resolved.is_internal:
        return Msat(0)
    return default_routing_cap(amount_msat) if order.max_fee_msat is None else order.max_fee_msat


async def _require_live_node(resources: Resources, amount_msat: Msat) -> None:
    async with resources.reading() as conn:
        sender = await find_live_sender(conn, amount_msat)
    if sender is None:
        raise Unavailable("no node has reported lately", code="node_unavailable")
