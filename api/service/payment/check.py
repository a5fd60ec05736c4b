"""An order checked, as the request that the payment's workflow is started with."""

from dataclasses import dataclass

from api.service.destination import resolve_to_pay
from api.service.fresh_price import require_fresh_prices
from api.service.payment.order import Facts, PlacedOrder
from api.service.payment_cost import require_max_fee
from api.service.resources import Resources
from engine.bank.node.node_choice import find_live_sender
from engine.contracts.payment import PaymentRequest
from engine.domain.errors import Unavailable
from engine.domain.money import Msat
from engine.domain.routing_cap import default_routing_cap


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedOrder:
    """An order that may be started."""

    request: PaymentRequest
    is_internal: bool
    shown_payee: str
    """The payee as operators read it in the Temporal UI."""


async def check(resources: Resources, placed: PlacedOrder, facts: Facts) -> CheckedOrder:
    """Look the destination up and make every default explicit. Raises what the caller can correct."""
    order, payer = placed.order, facts.require_payer()
    resolved, amount_msat = await resolve_to_pay(
        resources,
        order.destination,
        placed.destination,
        facts.payees,
        payer=order.wallet_id,
        amount_msat=order.amount_msat,
        comment=order.memo,
    )
    if not resolved.is_internal:
        if order.max_fee_msat is not None:
            await require_max_fee(resources, payer, amount_msat, order.max_fee_msat)
        async with resources.reading() as conn:
            if await find_live_sender(conn, amount_msat) is None:
                raise Unavailable("no node has reported lately", code="node_unavailable")
    await require_fresh_prices(resources, payer, resolved.kind)
    routing_cap_msat = default_routing_cap(amount_msat) if order.max_fee_msat is None else order.max_fee_msat
    invoice = resolved.request
    request = PaymentRequest(
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
        max_fee_msat=Msat(0) if resolved.is_internal else routing_cap_msat,
        memo=order.memo,
        external_id=order.external_id,
        fee_cap_msat=order.max_fee_msat,
        api_key_id=placed.api_key_id,
    )
    return CheckedOrder(request=request, is_internal=resolved.is_internal, shown_payee=resolved.shown_payee)
