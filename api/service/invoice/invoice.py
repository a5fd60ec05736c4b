"""Invoices: asking to be paid. No money moves, so no workflow runs: a row, and one repeatable call to a node.

    make    look up the key → AddInvoice at a live node that can receive the amount → row and key in one transaction
    cancel  CancelInvoice at its node → row, unless somebody has paid meanwhile

A row that is `open` past its expiry is shown as `expired`; the sweep writes that down later.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from api.service.auth import Caller
from api.service.idempotency import Intent, Outcome, find_replay, once, once_written, replay
from api.service.invoice.answer import InvoiceOut, shown
from api.service.invoice.node import InvoiceOrder, make_at_a_node
from api.service.resources import Resources
from engine.bank.invoice_row import cancel_in_tx, closed, insert_in_tx, paid
from engine.domain.errors import OutcomeUnknown, Unavailable, no_such
from engine.domain.ids import AccountId, InvoiceId, PaymentHash, WalletId, id_for_key, new_id
from engine.domain.page import START, Position, Slice
from engine.ledger.database import Connection
from engine.views.invoice import INVOICES, Facts, find_facts, find_invoice, find_node


async def make_invoice(
    resources: Resources, caller: Caller, order: InvoiceOrder, *, key: str | None, body_hash: bytes
) -> Outcome[InvoiceOut]:
    """Make the invoice, or find the one that was made with this key. `body_hash` tells one request from another.

    Raises NotFound for a wallet of another account, Refused for a closed account, Conflict and Unavailable.
    """
    caller.require("receive")
    account = caller.account_id
    facts = await facts_of(resources, account, order.wallet_id, key)
    intent = Intent(owner=account, key=key, body_hash=body_hash)
    if facts.known is not None:
        return Outcome(await _read(resources, account, replay(facts.known, intent)), is_replay=True)
    if facts.status == "closed":  # a locked account still receives
        raise closed()
    invoice_id = InvoiceId(id_for_key("inv", account, key) if key else new_id("inv"))
    new = await make_at_a_node(resources, facts.nodes, account, invoice_id, order, body_hash)
    claim = intent.claim(invoice_id)
    written: list[Mapping[str, Any]] = []

    async def write() -> bool:
        row = await resources.lookups.write(insert_in_tx, replace(new, claim=claim))
        written.extend([] if row is None else [row])
        return row is not None

    made = await once_written(resources, intent, invoice_id, write)
    content = shown(written[0]) if written else await _read(resources, account, made.content)
    return Outcome(content, is_replay=made.is_replay)


async def show_invoice(resources: Resources, caller: Caller, invoice_id: str) -> InvoiceOut:
    """One invoice of the caller's account. Raises NotFound."""
    caller.require("read")
    return await _read(resources, caller.account_id, invoice_id)


async def list_invoices(
    resources: Resources, caller: Caller, *, after: Position = START, limit: int
) -> Slice[InvoiceOut]:
    """One page of the invoices of the caller's account, newest first."""
    caller.require("read")
    async with resources.reading() as conn:
        found = await INVOICES.read(conn, after, limit, caller.account_id)
    return found.map(shown)


async def cancel_invoice(
    resources: Resources, caller: Caller, invoice_id: str, *, key: str | None, body_hash: bytes
) -> Outcome[InvoiceOut]:
    """Cancel it. One that was cancelled or has expired stays what it is.

    Raises NotFound, Refused (`invoice_already_paid`), and Unavailable when its node does not answer.
    """
    caller.require("receive")
    account = caller.account_id
    known = await _read(resources, account, invoice_id)
    intent = Intent(owner=account, key=key, body_hash=body_hash)
    is_replay = await find_replay(resources, intent) is not None
    if not is_replay:
        if known.status == "open" and not await _cancel_at_its_node(resources, known):
            raise paid()

        async def make(conn: Connection) -> None:
            await cancel_in_tx(conn, InvoiceId(invoice_id))

        is_replay = (await once(resources, intent, invoice_id, make)).is_replay
    return Outcome(await _read(resources, account, invoice_id), is_replay=is_replay)


async def facts_of(resources: Resources, account_id: AccountId, wallet_id: str, key: str | None) -> Facts:
    """What is known when the account asks for an invoice. Raises NotFound for a wallet of another account."""
    facts = await resources.lookups.ask(find_facts, (account_id, WalletId(wallet_id), key))
    if facts.status is None:
        raise no_such("wallet")
    return facts


async def _cancel_at_its_node(resources: Resources, known: InvoiceOut) -> bool:
    """False when somebody has paid it."""
    async with resources.reading() as conn:
        name = await find_node(conn, known.id)
    node = None if name is None else resources.invoices.get(name)
    if node is None:
        raise Unavailable(f"{name} is no node of ours now", code="node_unavailable")
    try:
        return await node.cancel_invoice(PaymentHash(known.payment_hash))
    except (OutcomeUnknown, Unavailable) as error:
        raise Unavailable(error.detail, code="node_unavailable") from error


async def _read(resources: Resources, account_id: AccountId, invoice_id: str) -> InvoiceOut:
    row = await find_invoice(resources.pool, account_id, invoice_id)
    if row is None:
        raise no_such("invoice")
    return shown(row)
