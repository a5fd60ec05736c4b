"""What the pump may have missed, the sweep finds; what nobody paid is closed.

A day is not waited for: the invoice's expiry is moved into the past in the database, and the schedule is triggered.
"""

import asyncio

import pytest

from engine.contracts import workflow_ids
from engine.domain.ids import NodeName
from infra.local.outside import Outside, outside
from tests.fixtures.stack import Account, Bank, Json, eventually
from tests.helpers.lane import locked_wallet, waiting_for
from tests.helpers.receipt import AMOUNT_MSAT, arriving, at_rest, carriers

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


async def _let_expire(bank: Bank, invoice: Json) -> NodeName:
    node = await bank.database.fetchval(
        """UPDATE bank.invoices SET expires_at = clock_timestamp() - interval '1 hour' WHERE id = $1 RETURNING node""",
        invoice["id"],
    )
    return NodeName(node)


async def _sweep(bank: Bank, node: NodeName) -> None:
    client = await bank.temporal()
    await client.get_schedule_handle(workflow_ids.invoice_sweep(node)).trigger()


async def _status(alice: Account, invoice: Json) -> str:
    return str((await alice.get(f"/v1/invoices/{invoice['id']}")).json()["status"])


async def test_an_invoice_that_the_node_has_closed_unpaid_is_marked_expired(bank: Bank) -> None:
    alice = await bank.open_account()
    invoice = await alice.invoice(1_000_000)
    node = await _let_expire(bank, invoice)
    assert await _status(alice, invoice) == "expired"
    async with outside(bank.stack, node) as at_node:
        await at_node.cancel(bytes.fromhex(invoice["payment_hash"]))

    async def marked() -> bool | None:
        await _sweep(bank, node)
        status = await bank.database.fetchval("SELECT status FROM bank.invoices WHERE id = $1", invoice["id"])
        return True if status == "expired" else None

    await eventually(marked, "the invoice to be marked expired")


async def test_a_receipt_that_the_pump_never_heard_of_is_found_and_credited_once(bank: Bank, shop: Outside) -> None:
    """The workers are down, the cursor is past what was handed on: no pump will ever tell of this one."""
    alice = await bank.open_account()
    invoice = await alice.invoice(1_500_000)
    for name in ("worker-1", "worker-2"):
        await asyncio.to_thread(bank.stack.hold, name)
    try:
        await shop.pay(invoice["bolt11"])
        node = await _let_expire(bank, invoice)
        async with outside(bank.stack, node) as at_node:
            settled = await at_node.look_up(bytes.fromhex(invoice["payment_hash"]))
        await bank.database.execute(
            "UPDATE bank.nodes SET settle_index = $2 WHERE name = $1", node, settled.settle_index
        )
    finally:
        for name in ("worker-1", "worker-2"):
            await asyncio.to_thread(bank.stack.release, name)

    async def credited() -> bool | None:
        await _sweep(bank, node)
        return True if await _status(alice, invoice) == "settled" else None

    await eventually(credited, "the sweep to find the receipt")
    assert (await alice.wallet())["available_msat"] == 1_500_000


async def test_the_sweep_and_a_page_that_find_the_same_receipts_at_once_credit_each_once(
    bank: Bank, shop: Outside
) -> None:
    """The page is in its transaction when the sweep starts a receipt of its own for each."""
    alice = await bank.open_account()
    async with locked_wallet(bank, alice) as holder:
        async with arriving(bank, shop, alice, 4) as invoices:
            for invoice in invoices:  # now: a page holds their rows
                node = await _let_expire(bank, invoice)
        await waiting_for(bank, holder)
        await _sweep(bank, node)

        async def begun() -> bool | None:
            client = await bank.temporal()
            ids = [workflow_ids.receive(invoice["payment_hash"]) for invoice in invoices]
            found = await client.count_workflows(f"WorkflowId IN ({', '.join(repr(each) for each in ids)})")
            return True if found.count == len(invoices) else None

        await eventually(begun, "the sweep to have found them")
    assert any(each.startswith("receipts-") for each in await carriers(bank, invoices))
    await at_rest(bank)
    assert [await _status(alice, invoice) for invoice in invoices] == ["settled"] * 4
    assert (await alice.wallet())["available_msat"] == sum(AMOUNT_MSAT + number for number in range(1, 5))
