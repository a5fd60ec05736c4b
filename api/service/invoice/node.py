"""Making an invoice at a node: which node is asked first, and what its answer must say.

The preimage is an HMAC of the invoice's id and the hash of the request, and the id comes from account and key. A repeat
after a crash therefore finds the node's invoice again. An invoice without a row was never shown to anybody.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from api.service.resources import Resources
from engine.bank.invoice_row import NewInvoice
from engine.clients import bolt11
from engine.clients.lnd.invoice import InvoiceNode
from engine.domain.errors import InvariantBroken, OutcomeUnknown, Unavailable
from engine.domain.ids import AccountId, InvoiceId, NodeName, WalletId
from engine.domain.money import Msat
from engine.views.invoice import UNKNOWN, Receiver

DEFAULT_EXPIRY_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceOrder:
    """What to ask a payer for. Without an amount the payer chooses."""

    wallet_id: str
    amount_msat: int | None = None
    memo: str | None = None
    """Shown to the payer, unless `description_hash` is given."""
    description_hash: str | None = None
    """SHA-256, in hex, of a description that the payer gets elsewhere."""
    expiry_s: int = DEFAULT_EXPIRY_S
    external_id: str | None = None


def preimage_of(resources: Resources, invoice_id: InvoiceId, request_hash: bytes) -> bytes:
    """The preimage of this invoice."""
    secret = bytes.fromhex(resources.settings.preimage_secret.get_secret_value())
    return hmac.digest(secret, invoice_id.encode() + request_hash, "sha256")


async def make_at_a_node(
    resources: Resources,
    nodes: Mapping[NodeName, Receiver],
    account_id: AccountId,
    invoice_id: InvoiceId,
    order: InvoiceOrder,
    request_hash: bytes,
) -> NewInvoice:
    """Ask one node after the other until one can receive the amount. Raises Unavailable when none makes an invoice.

    When no node can receive it, the invoice is the first node's. A node whose answer got lost, or whose invoice names
    no route that suffices, may keep an invoice that is shown to nobody; it expires there.
    """
    preimage, made = preimage_of(resources, invoice_id, request_hash), None
    amount_msat = None if order.amount_msat is None else Msat(order.amount_msat)
    for node in _in_order(resources.invoices.values(), nodes, amount_msat, invoice_id):
        receiver = nodes.get(node.name, UNKNOWN)
        try:
            text = await node.add_invoice(
                preimage=preimage,
                amount_msat=amount_msat,
                memo=order.memo,
                description_hash=bytes.fromhex(order.description_hash) if order.description_hash else None,
                expiry_s=order.expiry_s,
                hints=receiver.needs_hints(amount_msat),
            )
        except (Unavailable, OutcomeUnknown):
            continue
        invoice = _checked(text, resources, preimage, order)
        if _suffices(receiver.receivable_msat(hinted=bool(invoice.route_hints)), amount_msat):
            made = node.name, invoice
            break
        made = made or (node.name, invoice)
        if not _suffices(receiver.inbound_msat, amount_msat):  # the nodes are in order: no later one can either
            break
    if made is None:
        raise Unavailable("no node could make the invoice", code="node_unavailable")
    return NewInvoice(
        id=invoice_id,
        account_id=account_id,
        wallet_id=WalletId(order.wallet_id),
        node=made[0],
        made=made[1],
        amount_msat=amount_msat,
        memo=order.memo,
        description_hash=order.description_hash,
        external_id=order.external_id,
    )


def _in_order(
    nodes: Iterable[InvoiceNode],
    receivers: Mapping[NodeName, Receiver],
    amount_msat: Msat | None,
    invoice_id: InvoiceId,
) -> list[InvoiceNode]:
    """Nodes that have reported lately first, then those that can receive the amount, then those that can receive most.

    Among equals the order depends on the invoice's id, so invoices spread over the nodes.
    """

    def place(node: InvoiceNode) -> tuple[bool, bool, int, bytes]:
        receiver = receivers.get(node.name, UNKNOWN)
        suffices = _suffices(receiver.inbound_msat, amount_msat)
        spread = suffices and amount_msat is not None
        turn = hashlib.sha256(f"{invoice_id}{node.name}".encode()).digest()
        return not receiver.fresh, not suffices, 0 if spread else -(receiver.inbound_msat or 0), turn

    return sorted(nodes, key=place)


def _suffices(receivable_msat: Msat | None, amount_msat: Msat | None) -> bool:
    """Whether the amount can come in, as far as is known."""
    return receivable_msat is None or receivable_msat >= (amount_msat or 1)


def _checked(text: str, resources: Resources, preimage: bytes, order: InvoiceOrder) -> bolt11.Bolt11:
    """The node's invoice, decoded. It must have our payment hash and the amount that was ordered."""
    invoice = bolt11.decode(text, network=resources.settings.bitcoin_network)
    if invoice.payment_hash != hashlib.sha256(preimage).hexdigest() or invoice.amount_msat != order.amount_msat:
        raise InvariantBroken("the node made another invoice than it was asked for")
    return invoice
