"""A correction of the books, or capital: one operator proposes it, another one decides, and then it is posted.

    proposed ──┬─ approved ──┬─ posted      all of its transfers, in one transaction
               │             └─ refused     the books refused; nothing moved, and a new proposal is needed
               ├─ rejected                  by a second operator, or withdrawn by the first
               └─ expired                   nobody decided within seven days

Nobody approves his own proposal. Three places refuse it: the API, the validator here, and a constraint of the table. No
money moves before the second operator's decision. After it every step may be repeated.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from workflows.patience import in_books, not_yet, until_done

with workflow.unsafe.imports_passed_through():
    from engine.contracts import search_attributes
    from engine.contracts.correction import (
        CorrectionActivities,
        CorrectionOutcome,
        DecideCorrection,
        Decision,
        Proposal,
    )
    from engine.domain.correction import LONGEST_REASON, OPEN_FOR, CorrectionStatus

A = TypeVar("A")


@workflow.defn
class CorrectionWorkflow:
    """One proposal. The workflow id is made from operator and idempotency key, so a repeated start finds this run."""

    @workflow.init
    def __init__(self, proposal: Proposal) -> None:
        self._proposer = proposal.operator
        self._decision = proposal.decision
        self._outcome: CorrectionOutcome | None = None
        self._expired = False
        self._expires_at = proposal.expires_at
        self._leaves = False

    @workflow.run
    async def run(self, proposal: Proposal) -> CorrectionOutcome:
        outcome = await self._do("proposing", CorrectionActivities.propose_correction, proposal, proposal)
        if outcome.status is CorrectionStatus.PROPOSED:
            outcome = await self._decide(proposal)
        if outcome.status is CorrectionStatus.APPROVED:
            by = f" by {self._decision.operator}" if self._decision else ""
            _show(f"**approved**{by}: to be posted", "approved", needs_operator=False)
            outcome = await self._do("posting", CorrectionActivities.post_correction, proposal.correction, proposal)
        self._outcome = outcome
        _show_end(outcome)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return outcome

    @workflow.update
    async def decide(self, decision: Decision) -> CorrectionOutcome:
        """Approve or reject. Returns when the decision is stored and, if approved, posted or refused by the books."""
        if self._decision is None:
            self._decision = decision
        await workflow.wait_condition(lambda: self._outcome is not None or self._leaves)
        if self._outcome is None:
            raise not_yet()
        return self._outcome

    @decide.validator
    def _check_decision(self, decision: Decision) -> None:
        if not decision.operator.strip() or not decision.key_id.strip():
            raise ApplicationError("an operator must give a name and a key", type="Invalid")
        if len(decision.note) > LONGEST_REASON or not (decision.approve or decision.note.strip()):
            raise ApplicationError(f"a no has a reason, of at most {LONGEST_REASON} characters", type="Invalid")
        if decision.approve and decision.operator == self._proposer:
            raise ApplicationError("nobody approves what he proposed himself", type="OwnProposal")
        known = self._decision
        if known is not None and (known.operator, known.approve) == (decision.operator, decision.approve):
            return
        if known is not None or self._expired or self._outcome is not None:
            raise ApplicationError("it is decided", type="CorrectionDecided")

    async def _decide(self, proposal: Proposal) -> CorrectionOutcome:
        _show_waiting(proposal)
        open_for = _open_for(proposal)
        self._expires_at = workflow.now() + open_for
        try:
            await workflow.wait_condition(
                lambda: self._decision is not None, timeout=open_for, timeout_summary="for a second operator"
            )
        except TimeoutError:
            self._expired = self._decision is None
        decision = self._decision
        if decision is None:
            return await self._do("expiring", CorrectionActivities.expire_correction, proposal.correction, proposal)
        decide = DecideCorrection(correction=proposal.correction, decision=decision)
        return await self._do("deciding", CorrectionActivities.decide_correction, decide, proposal)

    async def _do(
        self, step: str, method: Callable[[Any, A], Awaitable[CorrectionOutcome]], asked: A, proposal: Proposal
    ) -> CorrectionOutcome:
        return await until_done(step, lambda: in_books(method, asked), renew=lambda: self._renew(proposal))

    async def _renew(self, proposal: Proposal) -> None:
        """Go on in a new run, which knows decision and deadline. A caller who waits here is told to ask again."""
        self._leaves = True
        await workflow.wait_condition(workflow.all_handlers_finished)
        workflow.continue_as_new(replace(proposal, decision=self._decision, expires_at=self._expires_at))


def _open_for(proposal: Proposal) -> timedelta:
    """How long the proposal still waits for a second operator."""
    if proposal.expires_at is None:
        return OPEN_FOR
    return max(proposal.expires_at - workflow.now(), timedelta(seconds=1))


def _show(details: str, status: str, *, needs_operator: bool) -> None:
    workflow.set_current_details(details)
    workflow.upsert_search_attributes(
        [search_attributes.STATUS.value_set(status), search_attributes.NEEDS_OPERATOR.value_set(needs_operator)]
    )


def _show_waiting(proposal: Proposal) -> None:
    lines = [
        f"**waits for a second operator**: {proposal.kind} over {proposal.amount_msat:,} msat",
        f"- proposed by {proposal.operator}",
        f"- Dr `{proposal.debit}`",
        f"- Cr `{proposal.credit}`",
        f"- {proposal.reason}",
        *([f"- case `{proposal.case}`"] if proposal.case else []),
        *([f"- reference `{proposal.reference}`"] if proposal.reference else []),
        f"Decided at `/v1/admin/corrections/{proposal.correction}`, within {OPEN_FOR.days} days.",
    ]
    _show("\n".join(lines), "proposed", needs_operator=True)


def _show_end(outcome: CorrectionOutcome) -> None:
    if outcome.status is None:
        _show("**not proposed**: the key belongs to another request", "refused", needs_operator=False)
    elif outcome.refusal is not None:
        words = f"**refused** by the books ({outcome.refusal.code}): {outcome.refusal.detail}. Nothing moved."
        _show(words, "refused", needs_operator=False)
    else:
        _show(f"**{outcome.status}**: final", str(outcome.status), needs_operator=False)
