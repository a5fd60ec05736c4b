"""bitcoind with an older copy of its wallet, or with one made from its descriptors alone: every deposit is found again.

The pool of addresses is full all the while, so nobody needs the wallet: it must be looked at all the same.
"""

import asyncio
from pathlib import Path

import pytest

from engine.contracts import workflow_ids
from infra.local.bitcoin_rpc import HOT, RpcError
from tests.fixtures.hot_bank import HotBank
from tests.fixtures.stack import eventually
from tests.helpers.deposit.depositor import Depositor

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

WINDOW = 1000


async def knows(hot: HotBank, txid: str) -> None:
    """Wait until the wallet has this transaction."""

    def look() -> bool:
        try:
            return bool(hot.chain.call("gettransaction", txid, wallet=HOT))
        except RpcError:
            return False

    async def known() -> bool | None:
        return True if await asyncio.to_thread(look) else None

    await eventually(known, "the wallet to have its transactions again")


async def beyond_the_window(hot: HotBank, user: Depositor) -> str:
    """An address that no earlier copy of the wallet watches."""
    await hot.bitcoind.make_addresses(WINDOW + 50, "bech32")
    highest = int(await hot.pool.fetchval("SELECT max(hd_index) FROM bank.addresses"))
    while True:
        address = await hot.address(user)
        index = int(await hot.pool.fetchval("SELECT hd_index FROM bank.addresses WHERE address = $1", address))
        if index > highest + WINDOW:
            return address


async def full(hot: HotBank) -> None:
    """Wait until the pool of addresses is."""

    async def look() -> bool | None:
        count: int = await hot.pool.fetchval("SELECT count(*) FROM bank.addresses WHERE wallet_id IS NULL")
        return True if count >= 30 else None

    await eventually(look, "the pool to be full")


async def from_descriptors(hot: HotBank) -> Path:
    """A copy of a wallet that was made from the hot wallet's descriptors, and has read no block."""

    def make() -> Path:
        asked = [
            {"desc": each["desc"], "active": True, "internal": each["internal"], "timestamp": "now"}
            for each in hot.chain.call("listdescriptors", True, wallet=HOT)["descriptors"]
            if each["active"]
        ]
        hot.chain.call("createwallet", "made", False, True)
        said = hot.chain.call("importdescriptors", asked, wallet="made")
        assert all(each["success"] for each in said), said
        copy = hot.chain.copy_wallet("made")
        hot.chain.call("unloadwallet", "made", False)
        return copy

    return await asyncio.to_thread(make)


@pytest.mark.parametrize("wallet", ["older copy", "from descriptors"])
async def test_a_restored_wallet_finds_every_deposit(hot: HotBank, wallet: str) -> None:
    near, far, waits, later = [await hot.user() for _ in range(4)]
    copy = await asyncio.to_thread(hot.chain.copy_wallet)
    near_sent = await hot.pay(near, 50_000)
    far_sent = await asyncio.to_thread(hot.chain.pay, await beyond_the_window(hot, far), 60_000)
    await hot.mine()
    await hot.pay(waits, 70_000)
    afterwards = await hot.address(later)
    await hot.shows(near, "credited", 50_000)
    await hot.shows(far, "credited", 60_000)
    await hot.shows(waits, "pending", incoming=70_000)
    await full(hot)
    if wallet == "from descriptors":
        copy = await from_descriptors(hot)
    await asyncio.to_thread(hot.chain.restore_wallet, HOT, copy)
    await asyncio.to_thread(hot.chain.pay, afterwards, 80_000)
    await hot.mine()
    await hot.shows(waits, "credited", 70_000)
    await hot.shows(later, "credited", 80_000)
    for sent in (near_sent, far_sent):
        await knows(hot, sent.txid)
    await hot.shows(near, "credited", 50_000)
    await hot.shows(far, "credited", 60_000)
    conflict = await asyncio.to_thread(hot.chain.double_spend, far_sent)
    await asyncio.to_thread(lambda: hot.chain.reorg(2, with_=[conflict]))
    await hot.shows(far, "reversed")
    await hot.shows(near, "credited", 50_000)
    await hot.shows(later, "credited", 80_000)
    assert {row["confs"] for row in await hot.rows(near)} == {1}


async def test_nothing_is_taken_back_because_the_wallet_has_forgotten_it(hot: HotBank) -> None:
    """The node has no transaction index. A reorganisation comes before the older wallet has read the blocks again."""
    far, stolen = await hot.user(), await hot.user()
    copy = await asyncio.to_thread(hot.chain.copy_wallet)
    far_sent = await asyncio.to_thread(hot.chain.pay, await beyond_the_window(hot, far), 60_000)
    sent = await asyncio.to_thread(hot.chain.pay, await hot.address(stolen), 70_000)
    await hot.mine()
    await hot.shows(far, "credited", 60_000)
    await hot.shows(stolen, "credited", 70_000)
    await hot.spend(far, 60_000)
    conflict = await asyncio.to_thread(hot.chain.double_spend, sent)
    async with hot.worker.away():
        await asyncio.to_thread(hot.chain.restore_wallet, HOT, copy, "-txindex=0")
        await asyncio.to_thread(lambda: hot.chain.reorg(1, with_=[conflict]))
    await hot.shows(stolen, "reversed")
    await hot.shows(far, "credited")
    assert await hot.receivables(far) == []
    assert [row["confs"] for row in await hot.rows(far)] == [1]
    await knows(hot, far_sent.txid)


async def test_a_wallet_with_other_keys_takes_back_only_what_is_gone(hot: HotBank) -> None:
    """An operator is called. With the right wallet all goes on."""
    kept, stolen = await hot.user(), await hot.user()
    await hot.pay(kept, 60_000)
    sent = await hot.pay(stolen, 70_000)
    await hot.mine()
    await hot.shows(kept, "credited", 60_000)
    await hot.shows(stolen, "credited", 70_000)
    conflict = await asyncio.to_thread(hot.chain.double_spend, sent)
    copy, other = await asyncio.to_thread(hot.chain.copy_wallet), await asyncio.to_thread(of_somebody_else, hot)
    await asyncio.to_thread(hot.chain.restore_wallet, HOT, other, "-txindex=0")
    await asyncio.to_thread(lambda: hot.chain.reorg(1, with_=[conflict]))
    temporal = await hot.temporal()

    async def called() -> bool | None:
        told = await temporal.get_workflow_handle(workflow_ids.chain_pump(HOT)).describe()
        return True if told.search_attributes.get("NeedsOperator") == [True] else None

    await eventually(called, "an operator to be called")
    await hot.shows(kept, "credited", 60_000)
    await asyncio.to_thread(hot.chain.restore_wallet, HOT, copy)
    await hot.shows(stolen, "reversed")
    await hot.shows(kept, "credited", 60_000)
    assert [row["confs"] for row in await hot.rows(kept)] == [1]


def of_somebody_else(hot: HotBank) -> Path:
    hot.chain.call("createwallet", "other")
    copy = hot.chain.copy_wallet("other")
    hot.chain.call("unloadwallet", "other", False)
    return copy
