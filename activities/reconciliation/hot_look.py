"""Looks at the hot wallet until a cut leaves nothing, or two quiet cuts leave the same.

A cut is the list of the wallet's coins at one tip, and after it one snapshot of the books. It is quiet when the pump
has recorded the same tip: then nothing that blocks have brought can be missing. What is left in a quiet cut may still
be a moment between two steps, so it must be left in another one too. While the pump is away no cut is quiet. Then what
it has not recorded is in flight, and the rest must stay the same for several cuts.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from activities.reconciliation import matching
from activities.reconciliation.coin import MOST_NAMED, Asked, Match, Matcher
from engine.bank.chain.cut import CoinRow, HotBooks, read_books
from engine.bank.reconciliation import NewCase
from engine.clients.bitcoind.answer import CoinCut
from engine.clients.bitcoind.chain import Bitcoind
from engine.contracts.reconciliation import HOT, Finding
from engine.domain.deposit import Sight
from engine.ledger.database import Pool, snapshot

_CUTS = 20
_ALIKE = 5
"""So many cuts in a row must leave the same while the pump is away."""
_ROUNDS = 3
"""An answer may show that a spend is not in force, and so that the coins which it spent are missing."""
_BACK = 6
"""So many blocks before the cut the wallet's own transactions are listed, to name what spends a missing coin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HotLook:
    """A cut, matched."""

    match: Match
    books: HotBooks
    findings: list[Finding]
    left_msat: int
    quiet: bool

    @property
    def outcome(self) -> tuple[int, frozenset[tuple[str, str, int]]]:
        """What must be the same in another cut."""
        return self.left_msat, frozenset((each.kind, each.subject, each.amount_msat) for each in self.findings)

    @property
    def clean(self) -> bool:
        """Whether nothing is found and nothing left."""
        return not self.left_msat and not self.findings


class HotLooker:
    """Bound to one wallet of one bitcoind."""

    def __init__(self, bitcoind: Bitcoind, pool: Pool, *, pause_s: float) -> None:
        self._bitcoind = bitcoind
        self._pool = pool
        self._pause_s = pause_s

    async def look_often(self, wallet: str, since: datetime, explained: Sequence[NewCase]) -> tuple[HotLook, bool]:
        """The last look, and whether it can be relied on."""
        before: list[HotLook] = []
        while True:
            look = await self._look(wallet, since, explained)
            quiet = [each.outcome for each in before if each.quiet]
            if look.quiet and (look.clean or look.outcome in quiet):
                return look, True
            before.append(look)
            if len(before) == _CUTS:
                alike = {each.outcome for each in before[-_ALIKE:]}
                return look, look.clean or (len(alike) == 1 and not any(each.quiet for each in before[-_ALIKE:]))
            await asyncio.sleep(self._pause_s)

    async def _look(self, wallet: str, since: datetime, explained: Sequence[NewCase]) -> HotLook:
        cut = await self._bitcoind.read_coins()
        async with snapshot(self._pool) as conn:
            books = await read_books(conn, wallet, cut.coins, since)
        seen_height = await self._seen_height(cut, books)
        asked = Asked()
        match = Matcher(cut, books, seen_height, asked).match()
        for _ in range(_ROUNDS):
            unknown = [each for each in match.missing if (each.txid, each.vout) not in asked.unspent]
            unknown = unknown[: MOST_NAMED - len(asked.unspent)]
            if not unknown:
                break
            asked = asked.and_then(await self._ask(cut, unknown))
            match = Matcher(cut, books, seen_height, asked).match()
        findings = match.findings[:MOST_NAMED]
        left = matching.rests([match.account], findings)
        if left:
            whole = [*findings, *matching.standing(explained, findings)]
            if not matching.rests([match.account], whole):
                findings, left = whole, {}
        return HotLook(
            match=match,
            books=books,
            findings=findings,
            left_msat=left.get(HOT, 0),
            quiet=cut.tip.hash == books.tip.hash,
        )

    async def _seen_height(self, cut: CoinCut, books: HotBooks) -> int:
        """Up to which block the pump has recorded the chain of the cut. -1: it stands on a branch that was left."""
        if cut.tip.hash == books.tip.hash:
            return cut.tip.height
        (at_height,) = await self._bitcoind.hashes_at([books.tip.height])
        return books.tip.height if at_height == books.tip.hash else -1

    async def _ask(self, cut: CoinCut, missing: Sequence[CoinRow]) -> Asked:
        """Ask bitcoind about coins that it does not list."""
        (start,) = await self._bitcoind.hashes_at([max(0, cut.tip.height - _BACK)])
        listing = await self._bitcoind.list_since(start or cut.tip.hash)
        outgoing = {each.txid for each in listing.entries if not each.incoming and each.confirmations >= 0}
        sights = await self._bitcoind.look_up([*outgoing, *(each.txid for each in missing)])
        alive = [txid for txid in outgoing if sights[txid].kind is not Sight.GONE]
        heights = sorted({each.block_height for each in missing if each.block_height is not None})
        hashes = await self._bitcoind.hashes_at(heights)
        points = [(each.txid, each.vout) for each in missing]
        return Asked(
            spends=await self._bitcoind.read_spends(alive),
            sights={txid: sights[txid] for txid, _vout in points},
            unspent=await self._bitcoind.is_unspent(points),
            owned=await self._bitcoind.knows([each.address for each in missing if each.address]),
            hashes=dict(zip(heights, hashes, strict=True)),
        )
