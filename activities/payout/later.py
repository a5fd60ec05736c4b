"""Decides when a later version of a payout is planned: it must pay more, or do without an input that is gone."""

from activities.payout import replace
from activities.payout.dead import end_if_dead
from activities.payout.remaining import inputs_that_remain
from activities.payout.send import fall_back
from activities.payout.story import Story
from engine.clients.bitcoind.hot import HotWallet
from engine.domain.ids import Txid
from engine.domain.withdrawal.bump import more_is_due
from engine.domain.withdrawal.fee_rate import choose_rate
from engine.domain.withdrawal.withdrawal import PayoutKind, VersionKind
from engine.ledger.chart import Chart
from engine.ledger.database import Pool

_NO_MORE = "it has paid more {most} times by rule, and waits again: {rate} sat per 1,000 vB would be right now"


class Later:
    """Bound to one wallet. A call that is repeated finds the version planned."""

    def __init__(self, pool: Pool, ids: Chart, wallet: HotWallet) -> None:
        self._pool, self._ids, self._spending = pool, ids, wallet.spending
        self._fees, self._address_type = wallet.fees, wallet.address_type

    async def pay_more_if_due(self, story: Story) -> None:
        """Plan a version that pays more, at an operator's word or by rule. The added fee is ours.

        No rule hurries a consolidation: it is made because fees are low. One that has paid more as often as the rule
        lets it, and waits again, is shown to operators.
        """
        row, bump = story.payout, story.rules.bump
        if row.bump_to_sat_kvb is not None:
            await self._note(story, None)
            await self._bump(story, row.bump_to_sat_kvb)
            return
        rate = None if row.kind is PayoutKind.CONSOLIDATION else await self._rate_if_due(story)
        is_last = sum(each.kind is VersionKind.BUMP for each in story.versions) >= bump.most
        await self._note(story, None if rate is None or not is_last else _NO_MORE.format(most=bump.most, rate=rate))
        if rate is not None and not is_last:
            await self._bump(story, rate)

    async def _rate_if_due(self, story: Story) -> int | None:
        """What it should pay by now; None: it waits rightly."""
        row, current, rules = story.payout, story.current, story.rules
        entry = await self._spending.mempool_entry(Txid(current.txid or ""))
        if entry is None or current.broadcast_at is None:
            return None
        estimate = await self._fees.estimate(rules.speeds[row.speed].target_blocks)
        rate = choose_rate(estimate, node_floor=await self._fees.node_floor(), rules=rules.rate, now=row.now)
        is_due = more_is_due(
            rules.bump,
            blocks=max(0, story.tip_height - entry.height),
            waited_s=int((row.now - current.broadcast_at).total_seconds()),
            paid_sat_kvb=current.rate_sat_kvb,
            now_sat_kvb=rate.rate_sat_kvb,
            incremental=await self._fees.incremental(),
        )
        return rate.rate_sat_kvb if is_due else None

    async def _note(self, story: Story, problem: str | None) -> None:
        if story.payout.problem != problem:
            await replace.note_problem(self._pool, story, problem)

    async def reach_floor(self, story: Story) -> None:
        """The node has refused it as below its floor: plan a version that pays what the node asks now.

        A floor that has fallen again asks for nothing: the same bytes are sent at the next look. Above the ceiling of
        the rules nothing is planned, and operators are told what the node says. A consolidation waits above the rate at
        which coins are joined, unless an operator wants it to pay more.
        """
        row = story.payout
        rate = max(await self._fees.node_floor(), row.bump_to_sat_kvb or 0)
        may_wait = row.kind is PayoutKind.CONSOLIDATION and row.bump_to_sat_kvb is None
        if may_wait and rate > story.rules.consolidation.below_rate:
            return
        if rate > max(story.rules.rate.ceiling, row.bump_to_sat_kvb or 0):
            return
        if rate > story.current.rate_sat_kvb:
            await self._bump(story, rate)

    async def pay_more_if_asked(self, story: Story) -> None:
        """The node refuses it, and an operator wants it to pay more: plan that version, with the same inputs."""
        if story.payout.bump_to_sat_kvb is not None:
            await self._bump(story, story.payout.bump_to_sat_kvb)

    async def _bump(self, story: Story, rate_sat_kvb: int) -> None:
        current = story.current
        entry = None if current.txid is None else await self._spending.mempool_entry(Txid(current.txid))
        wanted = replace.Wanted(
            kind=VersionKind.BUMP,
            rate_sat_kvb=rate_sat_kvb,
            incremental=await self._fees.incremental(),
            forced=current.inputs,
            replaced_fee_sat=current.fee_sat if entry is None else entry.descendants_fee_sat,
        )
        if not await replace.plan_version(self._pool, self._spending, story, wanted, self._address_type):
            await replace.note_problem(self._pool, story, "it must pay more, and there are no coins for it")

    async def do_without(self, story: Story) -> None:
        """An input of the current version is missing: an earlier version is there, or it is built again."""
        if await fall_back(self._pool, self._spending, story):
            return
        if story.payout.kind is not PayoutKind.BATCH:
            await end_if_dead(self._pool, self._ids, self._spending, story)
            return
        remaining = await inputs_that_remain(self._pool, self._spending, story)
        if remaining is None:
            return
        wanted = replace.Wanted(
            kind=VersionKind.REBUILD,
            rate_sat_kvb=max(story.current.rate_sat_kvb, story.payout.bump_to_sat_kvb or 0),
            incremental=await self._fees.incremental(),
            forced=remaining,
            replaced_fee_sat=0,
        )
        if not await replace.plan_version(self._pool, self._spending, story, wanted, self._address_type):
            await replace.note_problem(self._pool, story, "one of its coins is gone, and there are no others for it")
