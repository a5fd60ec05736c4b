"""Invoices that somebody without an API key asks for: at a lightning address or on a tip page."""

import hashlib
import re

from api.service.invoice.answer import InvoiceOut, shown
from api.service.invoice.invoice import facts_of
from api.service.invoice.node import InvoiceOrder, make_at_a_node, preimage_of
from api.service.resources import Resources
from engine.bank.invoice_row import closed, insert_in_tx
from engine.domain.errors import InvariantBroken, no_such
from engine.domain.ids import AccountId, InvoiceId, new_id
from engine.views.invoice import find_by_hash

_HASH = re.compile(r"[0-9a-f]{64}")
_PUBLIC = hashlib.sha256(b"public").digest()
"""Stands for the hash of the request, so these invoices are told from the account's other ones."""


async def make_for_public(resources: Resources, account_id: AccountId, order: InvoiceOrder) -> InvoiceOut:
    """An invoice that somebody without an API key asks for; each call makes another. Raises Refused, Unavailable."""
    facts = await facts_of(resources, account_id, order.wallet_id, None)
    if facts.status == "closed":
        raise closed()
    new = await make_at_a_node(resources, facts.nodes, account_id, InvoiceId(new_id("inv")), order, _PUBLIC)
    row = await resources.lookups.write(insert_in_tx, new)
    if row is None:
        raise InvariantBroken("an invoice without a key was taken for a repeat")
    return shown(row)


async def show_for_public(
    resources: Resources, account_id: AccountId, payment_hash: str
) -> tuple[InvoiceOut, str | None]:
    """An invoice that was made for the public, and its preimage once the network has seen it. Raises NotFound.

    The account's other invoices are not found: they concern nobody without a key. The preimage of an invoice that was
    paid within the bank stays secret: a node on the route of a late payment could take that payment with it.
    """
    is_hash = _HASH.fullmatch(payment_hash)
    found = await find_by_hash(resources.pool, account_id, payment_hash) if is_hash else None
    if found is None:
        raise no_such("invoice")
    row, outside_msat = found
    preimage = preimage_of(resources, InvoiceId(row["id"]), _PUBLIC)
    if hashlib.sha256(preimage).hexdigest() != payment_hash:
        raise no_such("invoice")
    return shown(row), preimage.hex() if outside_msat > 0 else None
