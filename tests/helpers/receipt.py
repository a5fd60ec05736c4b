"""Receipts that arrive together, made certain: a node's pump that stops between one page and the next.

    async with arriving(bank, shop, alice, 6) as invoices:     # paid, and waiting in the pump
        ...
    # now they go on as one page

The pump stops because the test holds the row of its cursor: it has handed one receipt on, and waits to say so. Those
that settle meanwhile are its next page.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg

from infra.local.outside import Outside
from tests.fixtures.stack import Account, Bank, Json, eventually
from tests.helpers.lane import waiting_in_the_books

AMOUNT_MSAT = 100_000


async def invoices_at_one_node(bank: Bank, *wanted: Account) -> tuple[str, list[Json]]:
    """(node, one invoice for each of these, in their order); where an invoice is made is the API's choice."""
    node = ""
    made: list[Json] = []
    for number, user in enumerate(wanted):
        while len(made) <= number:
            invoice = await user.invoice(AMOUNT_MSAT + number)
            at = await bank.database.fetchval("SELECT node FROM bank.invoices WHERE id = $1", invoice["id"])
            node = node or at
            if at == node:
                made.append(invoice)
    return node, made


@asynccontextmanager
async def arriving(
    bank: Bank, shop: Outside, payee: Account, count: int, *, more: Callable[[str], Awaitable[None]] | None = None
) -> AsyncIterator[list[Json]]:
    """Invoices of the payee's, all at one node, which are paid and wait in its pump until the block ends.

    `more` is called with the node before that, to settle something else there.
    """
    somebody = await bank.open_account()
    node, (first, *invoices) = await invoices_at_one_node(bank, somebody, *[payee] * count)
    conn = await asyncpg.connect(bank.stack.environment()["MILLRACE_POSTGRES_OWNER_DSN"])
    try:
        await conn.execute("BEGIN")
        await conn.execute("SELECT FROM bank.nodes WHERE name = $1 FOR UPDATE", node)
        await shop.pay(first["bolt11"])
        await waiting_in_the_books(bank, 2)  # the pump, and the report of what the node can send
        await asyncio.gather(*(shop.pay(invoice["bolt11"]) for invoice in invoices))
        if more is not None:
            await more(node)
        yield invoices
    finally:
        conn.terminate()


async def at_rest(bank: Bank) -> None:
    """Until no receipt is under way, alone or in a page."""
    client = await bank.temporal()

    async def look() -> bool | None:
        running = await client.count_workflows(
            'WorkflowType IN ("ReceiveWorkflow", "ReceiptPageWorkflow") AND ExecutionStatus = "Running"'
        )
        return None if running.count else True

    await eventually(look, "the receipts to end")


async def carriers(bank: Bank, invoices: list[Json]) -> list[str]:
    """The workflow that the books name for each of these receipts, once it is there."""

    async def look() -> list[str] | None:
        refs = [f"ln:{invoice['payment_hash']}:recv" for invoice in invoices]
        rows = await bank.database.fetch(
            "SELECT external_ref, workflow_id FROM ledger.transfers WHERE external_ref = ANY($1)", refs
        )
        found = {row["external_ref"]: row["workflow_id"] for row in rows}
        return [found[ref] for ref in refs] if len(found) == len(refs) else None

    return await eventually(look, "the receipts to be in the books", limit_s=120)
