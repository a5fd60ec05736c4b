"""A withdrawal, from the hold until a block has it.

    asked ─ held ─ approved ─ its batcher is told ─ batched ─ broadcast ─ confirmed
              │        └ rejected, or nobody answered in time: released
              └ cancelled, until it is batched: released

The row says how it stands. Batcher and payout write it, and tell this workflow by `payout_moved`. A lost signal costs
time only: it looks by itself as well. A cancellation and a payout meet at the row's lock, and one of them wins.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate
from temporalio.exceptions import ActivityError, ApplicationError, FailureError

from workflows.children import start_child
from workflows.patience import again, grown_long, in_books, until_done

with workflow.unsafe.imports_passed_through():
    from engine.contracts import search_attributes
    from engine.contracts.batcher import Batcher, batcher_start
    from engine.contracts.withdrawal import (
        DecideWithdrawal,
        OpenedWithdrawal,
        WithdrawalActivities,
        WithdrawalApproval,
        WithdrawalRef,
        WithdrawalRequest,
        WithdrawalState,
    )
    from engine.domain.correction import LONGEST_REASON

_LOOKS_AGAIN = timedelta(minutes=30)


@workflow.defn
class WithdrawalWorkflow:
    """One withdrawal. The id is made from account and key, so a repeated start finds this run."""

    @workflow.init
    def __init__(self, request: WithdrawalRequest) -> None:
        self._ref = WithdrawalRef(withdrawal_id=request.withdrawal_id)
        self._opened: OpenedWithdrawal | None = None
        self._moved = False

    @workflow.run
    async def run(self, request: WithdrawalRequest) -> OpenedWithdrawal:
        opened = await until_done(
            "opening", lambda: in_books(WithdrawalActivities.open_withdrawal, request), renew=again(request)
        )
        self._opened = opened
        state = opened.state
        while state is not None:
            _show(request, state)
            if state.ended:
                await workflow.wait_condition(workflow.all_handlers_finished)
                if not self._moved:
                    break
            if state.joins:
                await _join(Batcher(wallet=request.hot_wallet, speed=request.speed))
            await self._wait(state)
            if grown_long() and workflow.all_handlers_finished():
                workflow.continue_as_new(request)
            state = await until_done("following", self._look, renew=again(request), mended=lambda: self._moved)
        return OpenedWithdrawal(body_hash=opened.body_hash, state=state, refusal=opened.refusal)

    async def _look(self) -> WithdrawalState:
        """Each look answers the signals before it. A signal that comes meanwhile asks for another one."""
        self._moved = False
        return await in_books(WithdrawalActivities.advance_withdrawal, self._ref)

    async def _wait(self, state: WithdrawalState) -> None:
        until = _LOOKS_AGAIN if state.approve_in_s is None else timedelta(seconds=max(1.0, state.approve_in_s))
        try:
            await workflow.wait_condition(lambda: self._moved, timeout=until, timeout_summary=state.waits_for)
        except TimeoutError:
            return

    @workflow.signal
    def payout_moved(self) -> None:
        """Its batcher or its payout has written something down."""
        self._moved = True

    @workflow.update
    async def cancel(self) -> WithdrawalState:
        """Release the money while it is queued. Returns when the books have it."""
        return await self._tell(lambda: in_books(WithdrawalActivities.cancel_withdrawal, self._ref))

    @workflow.update
    async def decide(self, approval: WithdrawalApproval) -> WithdrawalState:
        """Do what was proposed: approve, reject, hold or resume. Returns when the books have it."""
        decide = DecideWithdrawal(withdrawal_id=self._ref.withdrawal_id, approval=approval)
        return await self._tell(lambda: in_books(WithdrawalActivities.decide_withdrawal, decide))

    @decide.validator
    def _check_approval(self, approval: WithdrawalApproval) -> None:
        if not (approval.decision.strip() and approval.operator.strip() and approval.key_id.strip()):
            raise ApplicationError("an operator must give a decision, a name and a key", type="Invalid")
        if len(approval.note) > LONGEST_REASON:
            raise ApplicationError(f"a note has at most {LONGEST_REASON} characters", type="Invalid")

    async def _tell(self, books: Callable[[], Awaitable[WithdrawalState]]) -> WithdrawalState:
        await workflow.wait_condition(lambda: self._opened is not None)
        try:
            state = await books()
        except ActivityError as refused:
            raise refused.cause or refused from refused
        self._moved = True
        return state


async def _join(batcher: Batcher) -> None:
    """Tell the batcher. It runs for ever; when it is gone, it is started."""
    start = batcher_start(batcher)
    try:
        await workflow.get_external_workflow_handle(start.id).signal("joined")
    except FailureError:
        await start_child(start)


def _show(request: WithdrawalRequest, state: WithdrawalState) -> None:
    lines = [
        f"{'**needs an operator**, ' if state.needs_operator else ''}**{state.status}**: {state.amount_sat:,} sat",
        f"- to `{request.address}`, {state.speed}",
        f"- from wallet `{request.wallet_id}`",
        *([f"- payout `{state.payout_id}`"] if state.payout_id else []),
        *([f"- transaction `{state.txid}`"] if state.txid else []),
        f"- waits for {state.waits_for}" if not state.ended else f"- {state.failure or 'nothing is left to do'}",
    ]
    workflow.set_current_details("\n".join(lines))
    attributes: list[SearchAttributeUpdate[Any]] = [
        search_attributes.STATUS.value_set(str(state.status)),
        search_attributes.NEEDS_OPERATOR.value_set(state.needs_operator),
    ]
    if state.txid is not None:
        attributes.append(search_attributes.TXID.value_set(state.txid))
    workflow.upsert_search_attributes(attributes)
