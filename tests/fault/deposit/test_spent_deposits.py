"""A deposit is spent by real payments, also over Lightning, and then a reorganisation takes it back."""

import asyncio

import pytest

from infra.local.outside import Outside
from tests.fixtures.stack import Bank
from tests.helpers.deposit.stack import pay, proved, shows
from tests.helpers.held_payment import held_payment

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]


@pytest.mark.parametrize("end", ["settled", "failed"])
async def test_part_of_it_is_held_by_a_lightning_payment(bank: Bank, shop: Outside, end: str) -> None:
    """30,000 sat went to another user and 40,000 are in flight when the block goes. Both are owed, whatever comes."""
    chain = bank.stack.chain()
    async with proved(bank):
        alice, bob = await bank.open_account(), await bank.open_account()
        sent = await pay(bank, alice, 100_000)
        await asyncio.to_thread(chain.mine)
        await shows(alice, "credited", 100_000_000)
        paid = await alice.pay(f"wallet:{bob.wallet_id}", amount_msat=30_000_000, wait_s=30)
        assert paid.json()["status"] == "settled", paid.text
        payment_id, held = await held_payment(alice, shop, 40_000_000)
        before = await alice.wallet()
        old = await asyncio.to_thread(chain.tip)
        conflict = await asyncio.to_thread(chain.double_spend, sent)
        await asyncio.to_thread(lambda: chain.reorg(1, with_=[conflict]))
        await shows(alice, "reversed")
        (deposit,) = (await alice.get("/v1/deposits")).json()["items"]
        assert deposit["receivable_msat"] == 100_000_000 - before["available_msat"] == 30_000_000 + before["held_msat"]
        assert (await alice.get("/v1/account")).json()["status"] == "locked"
        refused = await alice.pay(f"wallet:{bob.wallet_id}", amount_msat=1_000)
        assert refused.status_code in {403, 409, 422}, refused.text
        if end == "settled":
            await shop.settle(held)
        else:
            await shop.cancel(held.payment_hash)
        payment = await alice.final(payment_id)
        assert payment["status"] == end
        cost_msat = payment["amount_msat"] + payment["fee_msat"] if end == "settled" else 0
        await shows(alice, "reversed", before["held_msat"] - cost_msat)
        assert (await bob.wallet())["available_msat"] == 30_000_000
        await asyncio.to_thread(chain.come_back, old)
        await shows(alice, "credited", 70_000_000 - cost_msat)
        (deposit,) = (await alice.get("/v1/deposits")).json()["items"]
        assert not deposit["receivable_msat"]
        assert await bank.database.fetchval("SELECT status FROM bank.receivables WHERE account_id = $1", alice.id) == (
            "repaid"
        )
