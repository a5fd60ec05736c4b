"""A deposit, from the first sight of it until it lies deep: what the chain shows is booked, step by step.

    seen ─ incoming ─ deep enough ─ credited ─ deep ─ end
             │                        │
             └ dropped                └ reversed by a reorganisation ─ credited again, or gone

The row says what the chain shows and what is booked. The pump writes the first and signals when the second must follow,
again and again until it has. So the workflow needs no timer. When it is gone, the janitor or the pump begins it again.
The update `decide` does what two operators have decided: it credits a deposit that no rule can credit, or gives a
receivable up.
Deposits that come in great number share `DepositPageWorkflow`, one for each step of a page.
"""

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from workflows.children import start_child
from workflows.patience import again, grown_long, in_books, side_by_side, until_done

with workflow.unsafe.imports_passed_through():
    from engine.contracts import search_attributes
    from engine.contracts.deposit import (
        DecideDeposit,
        DepositActivities,
        DepositApproval,
        DepositDecisionActivities,
        DepositPage,
        DepositRef,
        DepositState,
        MovedPage,
        deposit_again,
    )
    from engine.domain.correction import LONGEST_REASON

_LISTED = 100


@workflow.defn
class DepositWorkflow:
    """One deposit. It ends when nothing is left to do; a deeper reorganisation begins another run."""

    @workflow.init
    def __init__(self, deposit: DepositRef) -> None:
        self._deposit = deposit.deposit
        self._moved = False

    @workflow.run
    async def run(self, deposit: DepositRef) -> DepositState:
        while True:
            state = await until_done(
                "booking", lambda: self._follow(deposit), renew=again(deposit), mended=lambda: self._moved
            )
            _show(state)
            if state.ended:
                await workflow.wait_condition(workflow.all_handlers_finished)
                if not self._moved:
                    return state
            await workflow.wait_condition(lambda: self._moved)
            if grown_long() and workflow.all_handlers_finished():
                workflow.continue_as_new(deposit)

    async def _follow(self, deposit: DepositRef) -> DepositState:
        """Each try answers the signals before it. A signal that comes meanwhile asks for another one."""
        self._moved = False
        return await in_books(DepositActivities.advance_deposit, deposit)

    @workflow.signal
    def chain_moved(self) -> None:
        """The pump has written something down that the books must follow."""
        self._moved = True

    @workflow.update
    async def decide(self, approval: DepositApproval) -> str:
        """A second operator approves: do what the first one has proposed. Returns when the books have it."""
        try:
            ref = await in_books(
                DepositDecisionActivities.decide_deposit, DecideDeposit(deposit=self._deposit, approval=approval)
            )
        except ActivityError as refused:
            raise refused.cause or refused from refused
        self._moved = True
        return ref

    @decide.validator
    def _check_approval(self, approval: DepositApproval) -> None:
        if not (approval.decision.strip() and approval.operator.strip() and approval.key_id.strip()):
            raise ApplicationError("an operator must give a decision, a name and a key", type="Invalid")
        if len(approval.note) > LONGEST_REASON:
            raise ApplicationError(f"a note has at most {LONGEST_REASON} characters", type="Invalid")


@workflow.defn
class DepositPageWorkflow:
    """One step of many deposits. Each that needs an operator goes on in a workflow of its own."""

    @workflow.run
    async def run(self, page: DepositPage) -> MovedPage:
        moved = await until_done(
            "booking",
            lambda: in_books(DepositActivities.advance_deposits, page),
            renew=again(page),
        )
        await side_by_side(start_child, [deposit_again(each) for each in moved.left_alone])
        lines = [f"**{moved.moved} of {len(page.deposits)}** moved on at height {page.height}"]
        lines += [f"- in a workflow of its own: `{each.workflow_id}`" for each in moved.left_alone[:_LISTED]]
        workflow.set_current_details("\n".join(lines))
        workflow.upsert_search_attributes([search_attributes.STATUS.value_set("moved")])
        return moved


def _show(state: DepositState) -> None:
    lines = [
        f"{'**needs an operator**, ' if state.needs_operator else ''}**{state.status}**: {state.amount_sat:,} sat",
        f"- output `{state.outpoint}`",
        f"- wallet `{state.wallet_id}`" if state.wallet_id else "- for no address of an open account",
        f"- waits for {state.waits_for}",
    ]
    workflow.set_current_details("\n".join(lines))
    workflow.upsert_search_attributes(
        [
            search_attributes.STATUS.value_set(str(state.status)),
            search_attributes.TXID.value_set(state.outpoint.partition(":")[0]),
            search_attributes.NEEDS_OPERATOR.value_set(state.needs_operator),
        ]
    )
