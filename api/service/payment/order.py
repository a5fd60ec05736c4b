"""An order to pay, from what the caller asks for to the request that its workflow is started with.

The facts of an order (payer, earlier request with its key, internal payees) are read together with those of all orders
that come at the same time: three statements, for one order or for many.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from api.service.auth import Caller
from api.service.destination import Resolved, amount_to_pay, as_internal, resolve, resolve_internal, with_invoice
from api.service.limits import require_fresh_prices, require_max_fee
from api.service.resources import Resources
from engine.bank.accepted import EarlierRequest, find_earlier_requests
from engine.bank.internal_payee import InternalPayees, find_internal_payees
from engine.bank.limits import Payer, find_payers
from engine.bank.node_choice import find_live_sender
from engine.contracts.payment import PaymentRequest
from engine.domain.destinations import Destination, read_destination
from engine.domain.errors import Invalid, Unavailable
from engine.domain.ids import AccountId, ApiKeyId, PaymentId, WalletId, id_for_key
from engine.domain.money import Msat
from engine.domain.routing_cap import default_routing_cap
from engine.ledger.database import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentOrder:
    """What a caller asks to be paid, from one of its wallets."""

    wallet_id: WalletId
    destination: str
    amount_msat: Msat | None = None
    """Required where the destination names no amount."""
    max_fee_msat: Msat | None = None
    """The most to pay beside the amount, for routing and as our fee."""
    memo: str | None = None
    external_id: str | None = None
    key: str
    """The idempotency key."""
    body_hash: bytes
    """SHA-256 of the order, by which a repeat is told from another order with the same key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedOrder:
    """An order with its caller, and the id of the payment, which is made from account and key."""

    order: PaymentOrder
    account_id: AccountId
    api_key_id: ApiKeyId
    payment_id: PaymentId
    destination: Destination | None
    """None where the text names nothing. The caller is told so after every check that comes before."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the books know of an order."""

    payer: Payer | None
    """None: the wallet is not the account's."""
    earlier: EarlierRequest | None
    """None: the key is free."""
    payees: InternalPayees


def place(resources: Resources, caller: Caller, order: PaymentOrder) -> PlacedOrder:
    """The order as this caller's."""
    try:
        destination = as_internal(resources.settings, read_destination(order.destination))
    except Invalid:
        destination = None
    account_id = caller.account_id
    return PlacedOrder(
        order=order,
        account_id=account_id,
        api_key_id=ApiKeyId(caller.key_id),
        payment_id=PaymentId(id_for_key("pay", account_id, order.key)),
        destination=destination,
    )


async def find_facts(conn: Connection, placed: Sequence[PlacedOrder]) -> list[Facts]:
    """The facts of each order, in their order."""
    payers = await find_payers(conn, [(each.account_id, each.order.wallet_id, each.api_key_id) for each in placed])
    earlier = await find_earlier_requests(conn, [(each.account_id, each.order.key, each.payment_id) for each in placed])
    payees = await find_internal_payees(conn, [each.destination for each in placed])
    return [Facts(payer, before, payees) for payer, before in zip(payers, earlier, strict=True)]


async def check(
    resources: Resources, placed: PlacedOrder, payer: Payer, payees: InternalPayees
) -> tuple[Resolved, PaymentRequest]:
    """What the destination names, and the request with every default made explicit. Raises what a caller can mend."""
    order = placed.order
    resolved = resolve_internal(order.destination, placed.destination, payees)
    if resolved is None:
        resolved = await resolve(resources, order.destination)
        resolved = await with_invoice(resources, resolved, order.amount_msat, order.memo)
    if resolved.wallet_id == order.wallet_id:
        raise Invalid("The destination is the wallet that would pay it.", code="self_payment")
    amount_msat = amount_to_pay(resolved, order.amount_msat, datetime.now(UTC))
    if not resolved.is_internal:
        if order.max_fee_msat is not None:
            await require_max_fee(resources, payer, amount_msat, order.max_fee_msat)
        await _require_live_node(resources, amount_msat)
    await require_fresh_prices(resources, payer, "internal" if resolved.is_internal else "lightning")
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
