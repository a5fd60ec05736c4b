"""Takes the next step of a payout, as its rows say, and tells its members. One step per call, each stored at its end.

    draft   sign   send   book   watch

Two calls at once, such as one that was thought dead, do the same step and find it done: rows are locked where they are
written, the bytes are the same, and every posting has its reference.
"""

from dataclasses import replace as replaced

from temporalio import activity
from temporalio.client import Client

from activities.heartbeat import heartbeats
from activities.payout import booking, decision, draft, replace, sign
from activities.payout.story import Step, Story, read_state, read_story
from activities.payout.tell import tell_of_step
from activities.payout.watch import Watch
from engine.clients.bitcoind.fault import FOR_OPERATORS
from engine.clients.bitcoind.hot import HotWallet
from engine.contracts.payout import DecidePayout, PayoutActivities, PayoutRef, PayoutState
from engine.domain.errors import EngineError, OutcomeUnknown, Unavailable
from engine.domain.withdrawal.withdrawal import PayoutStatus
from engine.ledger.chart import Chart
from engine.ledger.database import Pool


class Payouts(PayoutActivities):
    """Bound to one wallet of one node."""

    def __init__(self, pool: Pool, client: Client, wallet: HotWallet) -> None:
        self._pool, self._client, self._wallet = pool, client, wallet
        self._ids = Chart()
        self._watch = Watch(pool, self._ids, wallet)

    @activity.defn
    async def advance_payout(self, payout: PayoutRef) -> PayoutState:
        async with heartbeats():
            return await self._advance(payout)

    async def _advance(self, payout: PayoutRef) -> PayoutState:
        before = await read_story(self._pool, payout.payout_id)
        try:
            await self._take(before)
        except (Unavailable, OutcomeUnknown) as away:  # the next try finds out, or does it
            if away.fields.get("reason") not in FOR_OPERATORS:
                raise
            await replace.note_problem(self._pool, before, away.detail)
        except EngineError as error:
            await replace.note_problem(self._pool, before, error.detail)
            raise
        else:
            await self._clear(before)
        after = await read_story(self._pool, payout.payout_id)
        if after.payout.status is not before.payout.status:
            await tell_of_step(self._client, after.payout, [each.workflow_id for each in before.members])
        state = await read_state(self._pool, after)
        return replaced(state, step_due=state.step_due and _has_moved(before, after))

    async def _clear(self, before: Story) -> None:
        """A problem that has not kept it from its step is none any more."""
        if before.payout.problem is None:
            return
        after = await read_story(self._pool, before.payout.id)
        goes_on = after.step is not before.step or after.payout.status is PayoutStatus.CONFIRMED
        if goes_on and after.payout.problem == before.payout.problem:
            await replace.note_problem(self._pool, after, None)

    @activity.defn
    async def decide_payout(self, decide: DecidePayout) -> PayoutState:
        async with heartbeats():
            story = await read_story(self._pool, decide.payout_id)
            await decision.carry_out(self._pool, self._wallet.spending, story, decide, self._wallet.address_type)
            return await read_state(self._pool, await read_story(self._pool, decide.payout_id))

    async def _take(self, story: Story) -> None:
        spending = self._wallet.spending
        if story.step in (Step.DRAFT, Step.SIGN, Step.SEND) and await self._watch.is_mined(story):
            return
        match story.step:
            case Step.DRAFT:
                await draft.draft(self._pool, spending, story)
            case Step.SIGN:
                await sign.sign(self._pool, spending, self._wallet.signer, story)
            case Step.SEND:
                await self._watch.send(story)
            case Step.BOOK:
                await booking.book(self._pool, self._ids, story)
            case Step.WATCH:
                await self._watch.follow(story)
            case Step.FIND:
                await self._watch.find_sent(story)
            case Step.NONE:
                return


def _has_moved(before: Story, after: Story) -> bool:
    """Whether the call has changed anything. If not, the next one waits: it would ask the same at once, for ever."""
    return (before.step, before.payout.status, before.versions) != (after.step, after.payout.status, after.versions)
