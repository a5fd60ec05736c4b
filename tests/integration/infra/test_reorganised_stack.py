"""The stack's own chain may be reorganised: its Lightning nodes follow, and pay as before."""

import asyncio

import pytest

from infra.local.outside import outside, sync_network
from infra.local.stack import Stack

pytestmark = pytest.mark.integration


async def test_lightning_goes_on_after_a_reorganisation(stack: Stack) -> None:
    chain = stack.chain()
    sent = await asyncio.to_thread(chain.pay, await asyncio.to_thread(chain.address), 50_000)
    await asyncio.to_thread(chain.mine, 6)
    old = await asyncio.to_thread(chain.tip)
    conflict = await asyncio.to_thread(chain.double_spend, sent)
    await asyncio.to_thread(lambda: chain.reorg(6, with_=[conflict]))
    assert stack.bitcoin("hot").call("gettransaction", sent.txid)["confirmations"] == -7
    await sync_network(stack)
    async with outside(stack, "outside-1") as payer, outside(stack, "outside-2") as payee:
        await payer.pay(await payee.invoice(1_000))
    await asyncio.to_thread(chain.come_back, old)
    assert stack.bitcoin("hot").call("gettransaction", sent.txid)["confirmations"] == 8
    await sync_network(stack)
    left = await asyncio.to_thread(lambda: chain.reorg(9, with_=[conflict]))
    assert len(left) == 10
