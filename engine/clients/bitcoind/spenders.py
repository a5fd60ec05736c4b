"""Who has spent a coin of the wallet: one of our versions, or somebody with the same keys.

A wallet keeps each transaction that spends a coin of its own, whoever has made it. So a version that the node has never
taken, and of which `Spending.transaction` knows nothing, is gone for good only when `in_blocks` names another
transaction for one of its inputs, deep enough. That an input is missing proves less: its own transaction may come back.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from engine.clients.bitcoind.chain import Bitcoind
from engine.clients.bitcoind.node import BATCH
from engine.domain.deposit import Block, Outpoint
from engine.domain.ids import Txid


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """By which transaction, and where that one is."""

    txid: Txid
    block: Block
    confirmations: int
    """At the tip that the wallet had: 1 is the tip itself."""


class Spenders(Bitcoind):
    """Of one wallet's coins. Both may be repeated, and raise Unavailable with a `reason` of `fault.Reason`."""

    async def in_blocks(self, coins: Iterable[Outpoint], *, since: str) -> dict[Outpoint, Spent]:
        """Those of these coins of the wallet that the active chain has spent after the block of this hash.

        It reads what the wallet has sent since then, so name a block from just before the first version was signed.
        Raises Unavailable (`behind`) when the node does not know the block.
        """
        wanted = set(coins)
        if not wanted:
            return {}
        entries = (await self.list_since(since)).entries
        mined = {
            each.txid: Spent(txid=Txid(each.txid), block=each.block, confirmations=each.confirmations)
            for each in entries
            if not each.incoming and each.block is not None
        }
        return {
            outpoint: mined[txid]
            for txid, spent in (await self.read_spends(mined)).items()
            for outpoint in wanted.intersection(Outpoint(txid=Txid(coin), vout=vout) for coin, vout in spent)
        }

    async def in_mempool(self, coins: Iterable[Outpoint]) -> dict[Outpoint, Txid]:
        """Those of these outputs, whosever, that a transaction of the node's mempool spends, with its txid."""
        asked = [{"txid": each.txid, "vout": each.vout} for each in dict.fromkeys(coins)]
        found: dict[Outpoint, Txid] = {}
        for start in range(0, len(asked), BATCH):
            for told in await self._call("gettxspendingprevout", asked[start : start + BATCH]):
                if "spendingtxid" in told:
                    found[Outpoint(txid=Txid(told["txid"]), vout=told["vout"])] = Txid(told["spendingtxid"])
        return found
