"""Money that comes in over Lightning: credited once, for what was really paid, whoever was down when it came."""

import asyncio
import secrets
from datetime import UTC, datetime

import grpc
import pytest

from engine.contracts import search_attributes, workflow_ids
from engine.domain.ids import PaymentHash
from infra.local.outside import Outside, PaymentFailed, outside
from tests.fixtures.stack import Bank, Json, eventually
from tests.helpers.receipt import AMOUNT_MSAT, arriving, at_rest, carriers

pytestmark = pytest.mark.integration


async def test_an_invoice_is_credited_when_it_is_paid_from_outside(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account()
    invoice = await alice.invoice(1_234_567, memo="tip", expiry_s=600)
    assert (invoice["status"], invoice["received_msat"]) == ("open", 0)
    await shop.pay(invoice["bolt11"])
    settled = await bank.credited(alice, invoice["id"])
    assert (settled["received_msat"], settled["memo"]) == (1_234_567, "tip")
    assert (await alice.wallet())["available_msat"] == 1_234_567
    seen = (await alice.get(f"/v1/wallets/{alice.wallet_id}/transactions")).json()["items"]
    assert [(item["kind"], item["direction"], item["amount_msat"]) for item in seen] == [("invoice", "in", 1_234_567)]


async def test_an_invoice_without_an_amount_is_credited_for_what_came(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account()
    invoice = await alice.invoice()
    await shop.pay(invoice["bolt11"], amount_msat=4_321_000)
    assert (await bank.credited(alice, invoice["id"]))["received_msat"] == 4_321_000


async def test_an_invoice_that_is_overpaid_is_credited_for_all_that_came(bank: Bank, shop: Outside) -> None:
    """BOLT 4 lets a payer send up to twice the amount."""
    alice = await bank.open_account()
    invoice = await alice.invoice(1_000_000)
    await shop.overpay(invoice["bolt11"], 1_900_001)
    settled = await bank.credited(alice, invoice["id"])
    assert (settled["amount_msat"], settled["received_msat"]) == (1_000_000, 1_900_001)
    assert (await alice.wallet())["available_msat"] == 1_900_001


async def test_a_receipt_after_our_expiry_is_credited(bank: Bank, shop: Outside) -> None:
    """The node had not closed the invoice yet when the books had."""
    alice = await bank.open_account()
    invoice = await alice.invoice(1_000_000)
    await bank.database.execute(
        "UPDATE bank.invoices SET status = 'expired', expires_at = clock_timestamp() - interval '1 hour' WHERE id = $1",
        invoice["id"],
    )
    await shop.pay(invoice["bolt11"])
    assert (await bank.credited(alice, invoice["id"]))["received_msat"] == 1_000_000
    assert (await alice.wallet())["available_msat"] == 1_000_000


async def test_a_receipt_in_the_last_second_is_credited_and_nothing_else(bank: Bank, shop: Outside) -> None:
    """The payers come at the very end; the node lets some through, and those are told apart by it alone."""
    alice = await bank.open_account()
    early = await alice.invoice(1_000_000, expiry_s=600)
    late = [await alice.invoice(1_000_000 + number, expiry_s=4) for number in range(1, 7)]

    async def pay_late(invoice: Json, before_s: float) -> int:
        left = datetime.fromisoformat(invoice["expires_at"]) - datetime.now(UTC)
        await asyncio.sleep(max(0.0, left.total_seconds() - before_s))
        try:
            return (await shop.pay(invoice["bolt11"])).value_msat
        except (PaymentFailed, grpc.aio.AioRpcError):
            return 0

    await shop.pay(early["bolt11"])
    taken = await asyncio.gather(*(pay_late(invoice, 1.2 - 0.2 * number) for number, invoice in enumerate(late)))

    async def credited() -> bool | None:
        return True if (await alice.wallet())["available_msat"] == 1_000_000 + sum(taken) else None

    await eventually(credited, "the node's word to be in the books")
    for invoice, amount_msat in zip(late, taken, strict=True):
        found = (await alice.get(f"/v1/invoices/{invoice['id']}")).json()
        assert (found["status"], found["received_msat"]) == ("settled" if amount_msat else "expired", amount_msat)


async def test_many_receipts_at_once_are_all_credited(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account()
    invoices = await asyncio.gather(*(alice.invoice(1_000_000 + number) for number in range(20)))
    await asyncio.gather(*(shop.pay(invoice["bolt11"]) for invoice in invoices))
    for invoice in invoices:
        await bank.credited(alice, invoice["id"])
    assert (await alice.wallet())["available_msat"] == sum(1_000_000 + number for number in range(20))


async def test_receipts_that_arrive_together_share_a_workflow_and_what_is_special_has_its_own(
    bank: Bank, shop: Outside
) -> None:
    """Among them is money for an invoice that somebody made by hand: only that calls an operator."""
    alice = await bank.open_account()
    by_hand = PaymentHash("")

    async def pay_what_is_nobodys(node: str) -> None:
        nonlocal by_hand
        async with outside(bank.stack, node) as at_node:
            bolt11 = await at_node.invoice(2_222_000)
        by_hand = PaymentHash((await shop.pay(bolt11)).payment_hash)

    async with arriving(bank, shop, alice, 5, more=pay_what_is_nobodys) as invoices:
        pass
    told = await carriers(bank, invoices)
    page_id = next(each for each in told if each.startswith("receipts-"))
    await carriers(bank, [{"payment_hash": by_hand}])
    await at_rest(bank)
    client = await bank.temporal()
    seen = await client.get_workflow_handle(page_id).describe()
    found = seen.typed_search_attributes
    assert (
        found[search_attributes.KIND],
        found[search_attributes.STATUS],
        found[search_attributes.NEEDS_OPERATOR],
    ) == ("receipts", "settled", False)
    assert "payments" in (await seen.static_summary() or "")
    details = await seen.static_details() or ""
    carried = [invoice for invoice, carrier in zip(invoices, told, strict=True) if carrier == page_id]
    assert all(invoice["payment_hash"] in details for invoice in carried)
    alone = (await client.get_workflow_handle(workflow_ids.receive(by_hand)).describe()).typed_search_attributes
    assert (alone[search_attributes.PAYMENT_HASH], alone[search_attributes.NEEDS_OPERATOR]) == (by_hand, True)
    for invoice, carrier in zip(invoices, told, strict=True):
        settled = await bank.credited(alice, invoice["id"])
        assert (settled["received_msat"], settled["fee_msat"]) == (invoice["amount_msat"], 0)
        ref = f"ln:{invoice['payment_hash']}:recv"
        story = (await bank.http.get(f"/v1/admin/ledger/transfers/{ref}", headers=bank.admin)).json()
        assert ([step["workflow_id"] for step in story["steps"]], story["invoice_ids"]) == ([carrier], [invoice["id"]])
    assert (await alice.wallet())["available_msat"] == sum(AMOUNT_MSAT + number for number in range(1, 6))


async def test_a_cancelled_invoice_cannot_be_paid_by_anybody(bank: Bank, shop: Outside) -> None:
    alice, bob = await bank.open_account(), await bank.open_account(funds_msat=5_000_000)
    invoice = await alice.invoice(1_000_000)
    cancelled = await alice.post(f"/v1/invoices/{invoice['id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled"), cancelled.text
    assert (await bob.pay(invoice["bolt11"])).status_code == 409
    with pytest.raises(PaymentFailed):
        await shop.pay(invoice["bolt11"])
    assert (await alice.wallet())["available_msat"] == 0


async def test_money_for_an_invoice_that_we_never_issued_waits_in_suspense(bank: Bank, shop: Outside) -> None:
    """Somebody made an invoice by hand on our node: the books follow the node, and an operator is called."""
    async with outside(bank.stack, "lnd-1") as by_hand:
        await shop.pay(await by_hand.invoice(1_111_000))

    async def in_suspense() -> bool | None:
        found = await bank.database.fetchval(
            """SELECT true FROM ledger.entries e JOIN ledger.accounts a ON a.id = e.account_id
                WHERE a.code = 'suspense:in' AND e.amount = -1111000"""
        )
        return found or None

    await eventually(in_suspense, "the money to be in suspense")


async def test_an_outside_payer_who_is_slower_than_one_of_our_users_is_turned_away_or_credited_in_addition(
    bank: Bank, shop: Outside
) -> None:
    alice, bob = await bank.open_account(), await bank.open_account(funds_msat=5_000_000)
    for _ in range(3):
        invoice = await alice.invoice(1_000_000)
        before = (await alice.wallet())["available_msat"]
        inside, from_outside = await asyncio.gather(
            bob.pay(invoice["bolt11"], key=secrets.token_hex(4)), shop.pay(invoice["bolt11"]), return_exceptions=True
        )
        assert not isinstance(inside, BaseException)
        ways = int(inside.status_code == 201) + int(not isinstance(from_outside, BaseException))
        assert ways >= 1
        if inside.status_code != 201:
            assert inside.json()["code"] == "invoice_already_paid"

        async def credited(before: int = before, ways: int = ways) -> bool | None:
            return True if (await alice.wallet())["available_msat"] == before + ways * 1_000_000 else None

        await eventually(credited, f"{ways} credits")
