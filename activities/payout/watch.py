"""Looks where the versions of a payout are, and does what follows: in a block, deep, out of it again, not taken.

Any version may be confirmed, also one that a later one was to replace. The books then get the fee of that one.
"""

from collections.abc import Mapping

from activities.payout.booking import set_vouts_in_tx
from activities.payout.later import Later
from activities.payout.send import note_sent, send
from activities.payout.story import Story
from engine.bank.withdrawal import coin, member, payout, version
from engine.clients.bitcoind.answer import Sighting
from engine.clients.bitcoind.hot import HotWallet
from engine.clients.bitcoind.verdict import Fate, Refusal
from engine.domain.deposit import Sight, depth
from engine.domain.ids import Txid
from engine.domain.withdrawal.withdrawal import PayoutStatus
from engine.ledger.chart import Chart
from engine.ledger.database import Pool, transaction


class Watch:
    """Bound to one wallet."""

    def __init__(self, pool: Pool, ids: Chart, wallet: HotWallet) -> None:
        self._pool, self._chain, self._spending = pool, wallet.chain, wallet.spending
        self._later = Later(pool, ids, wallet)

    async def follow(self, story: Story) -> None:
        """One look, and at most one consequence. A repeat finds it done."""
        sights = await self._sights(story)
        if await self._confirm_mined(story, sights):
            return
        if story.payout.status is PayoutStatus.CONFIRMED:
            await self._take_back(story)
            return
        if story.payout.on_hold:
            await self._keep_out(story, sights)
            return
        current = story.current
        if current.txid is not None and sights[Txid(current.txid)].kind is Sight.MEMPOOL:
            await self._later.pay_more_if_due(story)
            return
        await self.send(story)

    async def is_mined(self, story: Story) -> bool:
        """Whether a block has a version of a payout that was sent. It is written down, and no later one is needed."""
        return story.payout.status is PayoutStatus.BROADCAST and await self._confirm_mined(
            story, await self._sights(story)
        )

    async def find_sent(self, story: Story) -> None:
        """Write down that a version is out, whoever sent it: also of a payout that an operator holds."""
        sights = await self._sights(story)
        for each in story.signed:
            if each.txid is not None and sights[Txid(each.txid)].kind in (Sight.MINED, Sight.MEMPOOL):
                await note_sent(self._pool, each)
                return

    async def _sights(self, story: Story) -> Mapping[str, Sighting]:
        return await self._chain.look_up([Txid(each.txid) for each in story.signed if each.txid is not None])

    async def _confirm_mined(self, story: Story, sights: Mapping[str, Sighting]) -> bool:
        for each in story.signed:
            if each.txid is not None and sights[Txid(each.txid)].kind is Sight.MINED:
                await self._confirm(story, each, sights[Txid(each.txid)])
                return True
        return False

    async def send(self, story: Story) -> None:
        """Send the current version, and do what its verdict asks for. A repeat sends the same bytes."""
        verdict = await send(self._pool, self._spending, story, story.current)
        if verdict.fate is Fate.MISSING_INPUTS:
            await self._later.do_without(story)
        elif verdict.refusal is Refusal.BELOW_FLOOR:
            await self._later.reach_floor(story)
        elif not verdict.is_known:
            await self._later.pay_more_if_asked(story)

    async def _keep_out(self, story: Story, sights: Mapping[str, Sighting]) -> None:
        """While an operator holds it: the bytes that are out already are sent again, and nothing else happens."""
        sent = story.in_force
        if sent.txid is None or sights[Txid(sent.txid)].kind is not Sight.MEMPOOL:
            await send(self._pool, self._spending, story, sent)

    async def _confirm(self, story: Story, of: version.VersionRow, sighting: Sighting) -> None:
        row, block = story.payout, sighting.block
        if block is None:
            return
        is_deep = depth(block.height, story.tip_height) >= story.rules.deep
        if (row.status, row.confirmed_version, row.block_height) == (PayoutStatus.CONFIRMED, of.number, block.height):
            if is_deep:
                await self._finish(story)
            return
        async with transaction(self._pool) as conn:
            now = await payout.get_row_in_tx(conn, row.id)
            if now.status is PayoutStatus.FINAL:  # another call has ended it
                return
            await payout.mark_confirmed_in_tx(conn, row.id, version=of.number, block_height=block.height)
            await set_vouts_in_tx(conn, story, of)
            await member.mark_confirmed_in_tx(conn, row.id)

    async def _finish(self, story: Story) -> None:
        async with transaction(self._pool) as conn:
            row, seen = await payout.get_row_in_tx(conn, story.payout.id), story.payout
            is_as_seen = (row.confirmed_version, row.block_height) == (seen.confirmed_version, seen.block_height)
            if row.status is PayoutStatus.CONFIRMED and is_as_seen:
                reserved = await coin.list_reserved(conn, row.id)
                await payout.mark_final_in_tx(conn, row.id)
                await coin.release_in_tx(conn, row.id)
                await self._spending.unlock(reserved)  # nobody would after the commit

    async def _take_back(self, story: Story) -> None:
        async with transaction(self._pool) as conn:
            row = await payout.get_row_in_tx(conn, story.payout.id)
            if row.status is PayoutStatus.CONFIRMED:
                await payout.mark_unconfirmed_in_tx(conn, row.id)
                await member.mark_unconfirmed_in_tx(conn, row.id)
