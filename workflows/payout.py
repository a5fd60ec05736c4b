"""A payout: one transaction of the hot wallet and its later versions, from the plan until a block lies deep over it.

    planned ─ unsigned ─ signed ─ broadcast ─ booked ─ confirmed ─ deep
                            │         └ no block takes it: pays more, or is pulled by a child
                            └ an input is gone for good: built again without it

Each step is stored before the next one begins, so a call that is repeated finds what the first one did. The row says
which step is next. The pump tells this workflow when the chain moves; it looks by itself as well.
"""

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate
from temporalio.exceptions import ActivityError, ApplicationError

from workflows.children import start_child
from workflows.patience import again, grown_long, side_by_side, until_done
from workflows.policies import SPEND

with workflow.unsafe.imports_passed_through():
    from engine.contracts import queues, search_attributes
    from engine.contracts.payout import DecidePayout, PayoutActivities, PayoutRef, PayoutState, payout_start
    from engine.contracts.withdrawal import WithdrawalApproval
    from engine.domain.correction import LONGEST_REASON


@workflow.defn
class PayoutWorkflow:
    """One payout. It ends when nothing is left to do."""

    @workflow.init
    def __init__(self, payout: PayoutRef) -> None:
        self._payout = payout
        self._moved = False

    @workflow.run
    async def run(self, payout: PayoutRef) -> PayoutState:
        while True:
            state = await until_done("paying out", self._advance, renew=again(payout), mended=lambda: self._moved)
            await side_by_side(start_child, [payout_start(each) for each in state.children])
            _show(state)
            if state.ended:
                await workflow.wait_condition(workflow.all_handlers_finished)
                if not self._moved:
                    return state
            if grown_long() and workflow.all_handlers_finished():
                workflow.continue_as_new(payout)
            if not state.step_due:
                await self._wait(state)

    async def _advance(self) -> PayoutState:
        """Each call answers the signals before it. A signal that comes meanwhile asks for another one."""
        self._moved = False
        return await workflow.execute_activity_method(
            PayoutActivities.advance_payout, self._payout, task_queue=queues.ONCHAIN, **SPEND
        )

    async def _wait(self, state: PayoutState) -> None:
        try:
            await workflow.wait_condition(
                lambda: self._moved,
                timeout=timedelta(seconds=max(1.0, state.look_again_s)),
                timeout_summary=state.waits_for,
            )
        except TimeoutError:
            return

    @workflow.signal
    def chain_moved(self) -> None:
        """A block has come or gone."""
        self._moved = True

    @workflow.update
    async def decide(self, approval: WithdrawalApproval) -> PayoutState:
        """Do what was proposed: hold, resume, bump, or pull it with a child. Returns when it is stored."""
        try:
            state = await workflow.execute_activity_method(
                PayoutActivities.decide_payout,
                DecidePayout(payout_id=self._payout.payout_id, approval=approval),
                task_queue=queues.ONCHAIN,
                **SPEND,
            )
        except ActivityError as refused:
            raise refused.cause or refused from refused
        self._moved = True
        return state

    @decide.validator
    def _check_approval(self, approval: WithdrawalApproval) -> None:
        if not (approval.decision.strip() and approval.operator.strip() and approval.key_id.strip()):
            raise ApplicationError("an operator must give a decision, a name and a key", type="Invalid")
        if len(approval.note) > LONGEST_REASON:
            raise ApplicationError(f"a note has at most {LONGEST_REASON} characters", type="Invalid")


def _show(state: PayoutState) -> None:
    called = "**needs an operator**, " if state.needs_operator else ""
    lines = [
        f"{called}**{state.status}**: {state.amount_sat:,} sat to {state.members}, for a fee of {state.fee_sat:,} sat",
        *([f"- transaction `{state.txid}`"] if state.txid else []),
        f"- waits for {state.waits_for}",
    ]
    workflow.set_current_details("\n".join(lines))
    attributes: list[SearchAttributeUpdate[Any]] = [
        search_attributes.STATUS.value_set(str(state.status)),
        search_attributes.NEEDS_OPERATOR.value_set(state.needs_operator),
    ]
    if state.txid is not None:
        attributes.append(search_attributes.TXID.value_set(state.txid))
    workflow.upsert_search_attributes(attributes)
