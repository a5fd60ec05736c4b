"""Writes one look at the chain down: tip, deposits and coins, in one transaction that only the newest pump can make.

What the wallet lists is written as it is. What was written above the fork, or waits in the mempool, and is not listed
is looked up by itself: `listsinceblock` is silent about a transaction whose conflict lies deeper than its cursor.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from activities.chain.look import Look
from engine.bank.chain import cursor, due, sighting
from engine.bank.chain.cursor import Chain
from engine.bank.rulebook import read_current
from engine.clients.bitcoind.chain import Bitcoind, WalletEntry
from engine.clients.bitcoind.chain import Sight as NodeSight
from engine.contracts import workflow_ids
from engine.domain.deposit import Block, DepositRules, Outpoint, Sight, parse_rules
from engine.domain.ids import BlockHash, Txid
from engine.domain.money import Sat
from engine.ledger.database import Pool, borrowed, transaction

ALONE_AT_MOST = 10
"""New deposits of one look that get a workflow each. A workflow costs some 20 ms of CPU: more of them share."""


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the transactions are that no block of the listing has."""

    known: dict[str, NodeSight]

    def of(self, entry: WalletEntry) -> tuple[Sight, Block | None] | None:
        """None for one that was not looked up, because nothing can have changed."""
        if entry.block is not None:
            return Sight.MINED, _block(entry.block.height, entry.block.hash)
        if entry.confirmations < 0:
            return Sight.GONE, None
        found = self.known.get(entry.txid)
        return None if found is None else place(found)


class Recorder:
    """Bound to one wallet."""

    def __init__(self, bitcoind: Bitcoind, pool: Pool) -> None:
        self._bitcoind = bitcoind
        self._pool = pool

    async def record(self, chain: Chain, epoch: int, look: Look, *, whole: bool) -> None:
        """Write it. `whole` also looks up what waits in the mempool. Raises Unavailable (`pump_overtaken`)."""
        mined = {entry.txid for entry in look.entries if entry.block is not None}
        async with borrowed(self._pool) as conn:
            unsettled = await sighting.list_unsettled_txids(conn, look.fork.height) - mined
            waiting = {entry.txid for entry in look.entries if entry.block is None and entry.confirmations >= 0}
            known = await sighting.list_known_txids(conn, waiting)
            rules = parse_rules((await read_current(conn, "deposits")).content)
        moved = whole or look.tip != chain.tip or look.fork != chain.tip
        asked = (waiting - known) | (unsettled | waiting if moved else set())
        places = _Places(await self._bitcoind.look_up(sorted(asked)))
        await self._write(chain, epoch, look, places, unsettled, rules)

    async def _write(
        self, chain: Chain, epoch: int, look: Look, places: _Places, unsettled: set[Txid], rules: DepositRules
    ) -> None:
        outputs = _outputs(look.entries, places)
        watched = [_watched(txid, places.known[txid]) for txid in sorted(unsettled) if txid in places.known]
        async with transaction(self._pool) as conn:
            await cursor.move_in_tx(
                conn,
                chain.wallet,
                epoch,
                fork=look.fork,
                blocks=look.blocks,
                work=look.info.work,
                rescanned=chain.rescan_from,
            )
            await sighting.record_in_tx(conn, outputs, watched, rules=rules, alone_at_most=ALONE_AT_MOST)
            await due.finish_shared_in_tx(conn, look.tip.height)


def place(found: NodeSight) -> tuple[Sight, Block | None]:
    """Where a transaction is, in the words of a deposit."""
    block = None if found.block is None else _block(found.block.height, found.block.hash)
    return Sight(found.kind.value), block


def _outputs(entries: Sequence[WalletEntry], places: _Places) -> list[sighting.SeenOutput]:
    """What pays the wallet, but for its own change. An output without an address, a bare multisig, is nobody's."""
    outputs = []
    for entry in entries:
        where = places.of(entry)
        if not entry.incoming or entry.change or entry.address is None or entry.amount_sat == 0 or where is None:
            continue
        outpoint = Outpoint(txid=Txid(entry.txid), vout=entry.vout)
        sight, block = where
        outputs.append(
            sighting.SeenOutput(
                outpoint=outpoint,
                address=entry.address,
                amount_sat=Sat(entry.amount_sat),
                coinbase=entry.coinbase,
                sight=sight,
                block=block,
                conflicts=entry.conflicts,
                workflow_id=workflow_ids.deposit(outpoint),
            )
        )
    return outputs


def _watched(txid: Txid, found: NodeSight) -> sighting.Watched:
    sight, block = place(found)
    return sighting.Watched(txid=txid, sight=sight, block=block)


def _block(height: int, block_hash: str) -> Block:
    return Block(height=height, hash=BlockHash(block_hash))
