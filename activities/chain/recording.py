"""Writes one look at the chain down: tip, deposits and coins, in one transaction that only the newest pump can make.

What the wallet lists is written as it is. What was written above the fork, or waits in the mempool, and is not listed
is looked up by itself: `listsinceblock` is silent about a transaction whose conflict lies deeper than its cursor.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from activities.chain.look import Look
from engine.bank.chain import coin, cursor, due, sighting
from engine.bank.chain.cursor import Chain
from engine.bank.chain.deposit_rules import read_deposit_rules
from engine.clients.bitcoind.answer import Sighting, WalletEntry
from engine.clients.bitcoind.chain import Bitcoind
from engine.contracts import workflow_ids
from engine.domain.deposit import Block, DepositRules, Outpoint, Sight
from engine.domain.ids import Txid
from engine.domain.money import Sat
from engine.ledger.database import Pool, borrowed, transaction

ALONE_AT_MOST = 10
"""New deposits of one look that get a workflow each. A workflow costs some 20 ms of CPU: more of them share."""


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the transactions are that no block of the listing has."""

    known: dict[str, Sighting]

    def of(self, entry: WalletEntry) -> tuple[Sight, Block | None] | None:
        """None for one that was not looked up, because nothing can have changed."""
        if entry.block is not None:
            return Sight.MINED, entry.block
        if entry.confirmations < 0:
            return Sight.GONE, None
        found = self.known.get(entry.txid)
        return None if found is None else (found.kind, found.block)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was looked up beside the listing."""

    places: _Places
    unsettled: set[str]
    spends: Mapping[str, Sequence[tuple[str, int]]]


class Recorder:
    """Bound to one wallet."""

    def __init__(self, bitcoind: Bitcoind, pool: Pool) -> None:
        self._bitcoind = bitcoind
        self._pool = pool

    async def record(self, chain: Chain, epoch: int, look: Look, *, whole: bool) -> None:
        """Write it. `whole` also looks up what waits in the mempool. Raises Unavailable (`pump_overtaken`)."""
        mined = {entry.txid for entry in look.entries if entry.block is not None}
        async with borrowed(self._pool) as conn:
            unsettled = await sighting.list_unsettled_txids(conn, look.fork.height)
            unsettled = (unsettled | await coin.list_unsettled_txids(conn, look.fork.height)) - mined
            waiting = {entry.txid for entry in look.entries if entry.block is None and entry.confirmations >= 0}
            known = await sighting.list_known_txids(conn, waiting)
            rules = await read_deposit_rules(conn)
        moved = whole or look.tip != chain.tip or look.fork != chain.tip
        asked = (waiting - known) | (unsettled | waiting if moved else set())
        places = _Places(await self._look_up(asked, look))
        spends = await self._bitcoind.read_spends(sorted({each.txid for each in look.entries if not each.incoming}))
        await self._write(chain, epoch, look, _Seen(places, unsettled, spends), rules)

    async def _look_up(self, txids: set[str], look: Look) -> dict[str, Sighting]:
        """Where these transactions are.

        A wallet that was restored may not know one that our rows have. Without a transaction index bitcoind cannot say
        then where it is: the new blocks are read for it.
        """
        found = await self._bitcoind.look_up(sorted(txids))
        doubtful = [txid for txid, sight in found.items() if sight.kind is Sight.GONE and not sight.known]
        if doubtful:
            hashes = [block.hash for block in look.blocks]
            mined = await self._bitcoind.find_in_blocks(doubtful, hashes)
            found |= {txid: Sighting(kind=Sight.MINED, block=block) for txid, block in mined.items()}
        return found

    async def _write(self, chain: Chain, epoch: int, look: Look, seen: _Seen, rules: DepositRules) -> None:
        places = seen.places
        watched = [_watched(txid, places.known[txid]) for txid in sorted(seen.unsettled) if txid in places.known]
        outputs, coins, spends = await asyncio.to_thread(_sorted, chain, look.entries, seen)
        lost = {txid for txid, found in places.known.items() if not _is_within(look, found)}
        gone = {entry.txid for entry in look.entries if entry.confirmations < 0}
        gone |= {txid for txid, found in places.known.items() if found.kind is Sight.GONE}
        async with transaction(self._pool) as conn:
            await cursor.move_in_tx(
                conn,
                chain.wallet,
                epoch,
                fork=look.fork,
                blocks=look.blocks,
                work=look.info.work,
                rescans=chain.rescans,
            )
            await sighting.record_in_tx(conn, outputs, watched, rules=rules, alone_at_most=ALONE_AT_MOST)
            await coin.record_in_tx(conn, coins, spends, unmined=sorted(lost - gone), gone=sorted(gone))
        async with transaction(self._pool) as conn:  # its rows are locked in an order of their own
            await due.finish_shared_in_tx(conn, look.tip.height)


def _sorted(
    chain: Chain, entries: Sequence[WalletEntry], seen: _Seen
) -> tuple[list[sighting.SeenOutput], list[coin.SeenCoin], list[coin.SeenSpend]]:
    """Deposits, coins and spends. Thousands take a tenth of a second, so payments must not wait for it."""
    return _outputs(entries, seen.places), _coins(chain, entries, seen.places), _spends(entries, seen)


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


def _coins(chain: Chain, entries: Sequence[WalletEntry], places: _Places) -> list[coin.SeenCoin]:
    """What the wallet has, also its change. A rescan lists what it had before it was adopted: that is no news."""
    return [
        coin.SeenCoin(
            txid=entry.txid,
            vout=entry.vout,
            amount_sat=entry.amount_sat,
            address=entry.address,
            change=entry.change,
            block_height=None if entry.block is None else entry.block.height,
        )
        for entry in entries
        if entry.incoming and _is_alive(entry, places) and not _is_old(chain, entry)
    ]


def _spends(entries: Sequence[WalletEntry], seen: _Seen) -> list[coin.SeenSpend]:
    heights = {
        entry.txid: None if entry.block is None else entry.block.height
        for entry in entries
        if not entry.incoming and _is_alive(entry, seen.places)
    }
    return [
        coin.SeenSpend(txid=txid, outpoint=outpoint, block_height=height)
        for txid, height in heights.items()
        for outpoint in seen.spends.get(txid, ())
    ]


def _is_alive(entry: WalletEntry, places: _Places) -> bool:
    where = places.of(entry)
    return where is not None and where[0] is not Sight.GONE


def _is_old(chain: Chain, entry: WalletEntry) -> bool:
    return chain.rescan_from is not None and entry.block is not None and entry.block.height <= chain.adopted_height


def _is_within(look: Look, found: Sighting) -> bool:
    """Whether it is in a block that this look has. A later block may be left before another look lists it."""
    return found.block is not None and found.block.height <= look.tip.height


def _watched(txid: str, found: Sighting) -> sighting.Watched:
    return sighting.Watched(txid=Txid(txid), sight=found.kind, block=found.block)
