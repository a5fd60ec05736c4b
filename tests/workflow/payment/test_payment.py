"""The story of a payment, with a fake ledger and a fake node behind the real contracts, on a clock that skips waits."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from engine.contracts import search_attributes
from engine.contracts.payment import (
    AttemptReport,
    NodeVerdict,
    OpenedPayment,
    PaymentOutcome,
    PaymentStatus,
    Refusal,
)
from engine.domain.errors import InvariantBroken, Unavailable
from engine.domain.ids import AccountId
from engine.domain.money import Msat
from engine.domain.sending import Waiting
from tests.helpers.event_loop import until
from tests.helpers.payment_workflow import (
    APPROVAL,
    BODY_HASH,
    HELD,
    IN_FLIGHT,
    NO_ROUTE,
    PAID,
    FakeLedger,
    FakeNode,
    FakeOperators,
    is_refuted,
    paying,
)
from workflows.payment import PaymentWorkflow

pytestmark = pytest.mark.workflow


async def test_a_payment_to_one_of_our_users_is_final_without_a_node(skipping_temporal: WorkflowEnvironment) -> None:
    done = PaymentOutcome(body_hash=BODY_HASH, status=PaymentStatus.SETTLED)
    ledger, node = FakeLedger(opened=OpenedPayment(outcome=done)), FakeNode(sends=[])
    async with paying(skipping_temporal, ledger, node) as handle:
        assert await handle.result() == done
    assert node.sent == 0


async def test_a_refusal_ends_the_payment_before_anything_is_sent(skipping_temporal: WorkflowEnvironment) -> None:
    no = PaymentOutcome(body_hash=BODY_HASH, refusal=Refusal(code="insufficient_funds", detail="too little"))
    ledger, node = FakeLedger(opened=OpenedPayment(outcome=no)), FakeNode(sends=[])
    async with paying(skipping_temporal, ledger, node) as handle:
        assert await handle.result() == no
    assert node.sent == 0


async def test_a_paid_invoice_is_settled_with_the_fee_that_the_node_names(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[PAID])
    async with paying(skipping_temporal, ledger, node) as handle:
        assert (await handle.result()).status is PaymentStatus.SETTLED
    assert [settle.fee_msat for settle in ledger.settled] == [350]
    assert ledger.released == []


async def test_a_payee_who_took_another_amount_is_settled_with_it_and_calls_an_operator(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    partly = replace(PAID, delivered_msat=Msat(60_000))
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[partly])
    async with paying(skipping_temporal, ledger, node) as handle:
        assert (await handle.result()).delivered_msat == 60_000
        assert await _is_told(handle, needs_operator=True)
    assert [(settle.delivered_msat, settle.fee_msat) for settle in ledger.settled] == [(60_000, 350)]


async def test_one_that_was_found_settled_with_another_amount_calls_an_operator_too(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    done = PaymentOutcome(body_hash=BODY_HASH, status=PaymentStatus.SETTLED, delivered_msat=Msat(60_000))
    async with paying(skipping_temporal, FakeLedger(opened=OpenedPayment(outcome=done)), FakeNode(sends=[])) as handle:
        assert await handle.result() == done
        assert await _is_told(handle, needs_operator=True)


async def test_an_authoritative_failure_releases_the_money(skipping_temporal: WorkflowEnvironment) -> None:
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[NO_ROUTE])
    async with paying(skipping_temporal, ledger, node) as handle:
        assert (await handle.result()).status is PaymentStatus.FAILED
    assert [release.failure_code for release in ledger.released] == ["no_route"]
    assert ledger.settled == []


async def test_an_error_of_the_node_is_no_failure_of_the_payment(skipping_temporal: WorkflowEnvironment) -> None:
    away = [Unavailable("connection refused") for _ in range(20)]
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[*away, PAID])
    async with paying(skipping_temporal, ledger, node) as handle:
        assert (await handle.result()).status is PaymentStatus.SETTLED
    assert node.sent == 21
    assert ledger.released == []


async def test_a_payment_in_flight_stays_pending_for_a_week_without_growing_history(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[IN_FLIGHT], final=PAID, days_in_flight=7)
    async with paying(skipping_temporal, ledger, node) as handle:
        assert (await handle.result()).status is PaymentStatus.SETTLED
        history = await handle.fetch_history()
    assert node.looked == 8
    assert len(history.events) < 40
    assert ledger.released == []


async def test_the_pumps_signal_makes_it_look_at_once(skipping_temporal: WorkflowEnvironment) -> None:
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[IN_FLIGHT])
    async with paying(skipping_temporal, ledger, node) as handle:
        await until(lambda: node.looked > 0)
        node.final = NO_ROUTE
        await handle.signal(PaymentWorkflow.node_reported)
        assert (await handle.result()).status is PaymentStatus.FAILED


async def test_an_operators_cancel_does_not_let_go_of_money_in_flight(skipping_temporal: WorkflowEnvironment) -> None:
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[IN_FLIGHT])
    async with paying(skipping_temporal, ledger, node) as handle:
        await until(lambda: node.looked > 0)
        await handle.cancel()
        node.final = PAID
        await handle.signal(PaymentWorkflow.node_reported)
        assert (await handle.result()).status is PaymentStatus.SETTLED
    assert ledger.released == []


async def _is_told(handle: WorkflowHandle[PaymentWorkflow, PaymentOutcome], *, needs_operator: bool) -> bool:
    attributes = (await handle.describe()).typed_search_attributes
    return attributes.get(search_attributes.NEEDS_OPERATOR) is needs_operator


async def test_a_look_that_finds_another_reason_to_wait_is_shown_and_goes_on(
    skipping_temporal: WorkflowEnvironment,
) -> None:
    stuck = Waiting(reason="overdue", detail="its time lock has ended", needs_operator=True)
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[IN_FLIGHT])
    async with paying(skipping_temporal, ledger, node) as handle:
        await until(lambda: node.looked > 0)
        node.final = AttemptReport(verdict=NodeVerdict.IN_FLIGHT, waiting=stuck)
        await handle.signal(PaymentWorkflow.node_reported)
        await until(lambda: "overdue" in node.told)
        async with asyncio.timeout(30):
            while not await _is_told(handle, needs_operator=True):
                await asyncio.sleep(0.02)
        node.final = NO_ROUTE
        await handle.signal(PaymentWorkflow.node_reported)
        assert (await handle.result()).status is PaymentStatus.FAILED
        assert await _is_told(handle, needs_operator=False)


async def test_a_step_that_was_mended_goes_on_at_the_nodes_first_word(skipping_temporal: WorkflowEnvironment) -> None:
    """The node refused us for good; an operator mended it, and the pump that came back says so."""
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[InvariantBroken("no macaroon"), PAID])
    async with paying(skipping_temporal, ledger, node) as handle:
        await until(lambda: node.sent == 1)
        await handle.signal(PaymentWorkflow.node_reported)
        assert (await handle.result()).status is PaymentStatus.SETTLED


async def test_broken_books_call_an_operator_and_are_tried_again(skipping_temporal: WorkflowEnvironment) -> None:
    ledger, node = FakeLedger(opened=HELD, broken=2), FakeNode(sends=[PAID])
    async with paying(skipping_temporal, ledger, node) as handle:
        assert (await handle.result()).status is PaymentStatus.SETTLED
    assert len(ledger.settled) == 1


async def test_a_step_that_stays_broken_is_tried_ever_more_rarely(skipping_temporal: WorkflowEnvironment) -> None:
    """A try a minute would have filled the history, at whose end the workflow with its held money is lost."""
    ledger, node = FakeLedger(opened=HELD, broken=20), FakeNode(sends=[PAID])
    async with paying(skipping_temporal, ledger, node) as handle:
        await handle.result()
        told = await handle.describe()
    assert told.close_time is not None
    assert told.close_time - told.start_time > timedelta(hours=7)


@pytest.mark.parametrize("sends", [[IN_FLIGHT], [InvariantBroken("another node answers")]])
async def test_two_operators_end_a_payment_that_waits_for_them(
    skipping_temporal: WorkflowEnvironment, sends: list[AttemptReport | Exception]
) -> None:
    """While it is watched, and while a send that failed for good waits to be tried again."""
    ledger, operators = FakeLedger(opened=HELD), FakeOperators()
    node = FakeNode(sends=[*sends, IN_FLIGHT])
    async with paying(skipping_temporal, ledger, node, operators) as handle:
        await until(lambda: node.sent > 0)
        decided = await _decide(handle)
        assert (decided.status, await handle.result()) == (PaymentStatus.FAILED, decided)
    assert ([carry.approval for carry in operators.carried], ledger.settled, ledger.released) == ([APPROVAL], [], [])


async def _decide(handle: WorkflowHandle[PaymentWorkflow, PaymentOutcome]) -> PaymentOutcome:
    """Approve; while it is just being sent, ask again."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await handle.execute_update(PaymentWorkflow.decide, APPROVAL)
            except WorkflowUpdateFailedError as refused:
                if not isinstance(refused.cause, ApplicationError) or refused.cause.type != "PaymentNotStuck":
                    raise


async def test_a_decision_that_the_node_refutes_ends_nothing(skipping_temporal: WorkflowEnvironment) -> None:
    ledger, node = FakeLedger(opened=HELD), FakeNode(sends=[IN_FLIGHT])
    async with paying(skipping_temporal, ledger, node, FakeOperators(refused=True)) as handle:
        await until(lambda: node.looked > 0)
        await is_refuted(handle)
        node.final = PAID
        await handle.signal(PaymentWorkflow.node_reported)
        assert (await handle.result()).status is PaymentStatus.SETTLED


async def test_an_approval_without_a_name_is_not_taken(skipping_temporal: WorkflowEnvironment) -> None:
    ledger, node, operators = FakeLedger(opened=HELD), FakeNode(sends=[IN_FLIGHT]), FakeOperators()
    async with paying(skipping_temporal, ledger, node, operators) as handle:
        await until(lambda: node.looked > 0)
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update(PaymentWorkflow.decide, replace(APPROVAL, operator=AccountId(" ")))
        assert operators.carried == []
        node.final = NO_ROUTE
        await handle.signal(PaymentWorkflow.node_reported)
        await handle.result()
