"""Money that comes in an unusual way or at an unusual time: more than was asked for, in the last second, credited and
then streamed again. What was really paid is credited, once."""

import asyncio

import pytest

from engine.clients.lndrpc import lightning_pb2 as ln
from engine.clients.lndrpc.routerrpc import router_pb2 as router
from infra.local.outside import PAY_LIMIT_S, Outside
from tests.fixtures.hop import Hop
from tests.fixtures.stack import Bank, eventually

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]


async def test_an_invoice_that_is_overpaid_credits_what_came(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account()
    invoice = await alice.invoice(1_000_000)
    asked = await shop.stubs.lightning.DecodePayReq(ln.PayReqString(pay_req=invoice["bolt11"]))
    request = router.SendPaymentRequest(
        dest=bytes.fromhex(asked.destination),
        payment_hash=bytes.fromhex(asked.payment_hash),
        payment_addr=asked.payment_addr,
        dest_features=[ln.FeatureBit.ValueType(bit) for bit in asked.features],
        final_cltv_delta=asked.cltv_expiry,
        amt_msat=1_500_000,
        fee_limit_msat=10_000,
        timeout_seconds=PAY_LIMIT_S,
        no_inflight_updates=True,
    )
    ends = [payment.status async for payment in shop.stubs.router.SendPaymentV2(request)]
    assert ends == [ln.Payment.SUCCEEDED]
    settled = await bank.credited(alice, invoice["id"])
    assert (settled["amount_msat"], settled["received_msat"]) == (1_000_000, 1_500_000)
    assert (await alice.wallet())["available_msat"] == 1_500_000


async def test_workers_killed_between_the_credit_and_the_cursor_credit_once(bank: Bank, shop: Outside) -> None:
    """The cursor cannot move, because somebody holds its row; so after the kill the node streams the receipt again."""
    alice = await bank.open_account()
    first, second = await alice.invoice(1_000_000), await alice.invoice(2_000_000)
    async with bank.database.acquire() as conn, conn.transaction():
        before = await conn.fetch("SELECT name, settle_index FROM bank.nodes ORDER BY name FOR NO KEY UPDATE")
        await shop.pay(first["bolt11"])
        await bank.credited(alice, first["id"])
        await asyncio.gather(*(asyncio.to_thread(bank.stack.kill, f"worker-{number}", wait=False) for number in (1, 2)))
        assert await conn.fetch("SELECT name, settle_index FROM bank.nodes ORDER BY name") == before
    await shop.pay(second["bolt11"])
    await bank.credited(alice, second["id"])

    async def moved() -> bool | None:
        now = await bank.database.fetch("SELECT name, settle_index FROM bank.nodes ORDER BY name")
        return True if now != before else None

    await eventually(moved, "the cursor to move")
    assert (await alice.wallet())["available_msat"] == 3_000_000


async def test_an_invoice_that_is_paid_in_the_last_second_is_credited(bank: Bank, shop: Outside, middle: Hop) -> None:
    """The HTLC is on its way while the invoice expires in our books. The node still takes it, and the money counts."""
    alice = await bank.open_account()
    invoice = await alice.invoice(1_000_000)
    payment_hash = bytes.fromhex(invoice["payment_hash"])
    middle.keep(payment_hash)
    paying = asyncio.create_task(shop.pay(invoice["bolt11"]))
    (htlc,) = await middle.kept(payment_hash, 1)
    await bank.database.execute(
        "UPDATE bank.invoices SET expires_at = clock_timestamp() - interval '1 hour' WHERE id = $1", invoice["id"]
    )
    assert (await alice.get(f"/v1/invoices/{invoice['id']}")).json()["status"] == "expired"
    await middle.pass_on(htlc)
    await paying
    await bank.credited(alice, invoice["id"])
    assert (await alice.wallet())["available_msat"] == 1_000_000
