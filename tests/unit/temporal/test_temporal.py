"""The table of `api/service/temporal.py`: what Temporal answers, in the engine's errors."""

from typing import Any, cast

import pytest
from temporalio.client import Client, RPCError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCStatusCode

from api.service import temporal
from engine.contracts import queues, update_failure, workflow_ids
from engine.contracts.invoice import Receipt, receive_start
from engine.contracts.reconciliation import (
    CaseResolution,
    FindingKind,
    OpenCase,
    Reconcile,
    asked_reconciliation,
    case_start,
)
from engine.domain.errors import InvariantBroken, NotFound, Unavailable
from engine.domain.ids import AccountId, CaseId, NodeName, PaymentHash
from engine.domain.money import Msat
from workflows.reconciliation import CaseWorkflow

pytestmark = pytest.mark.unit

START = asked_reconciliation(Reconcile(), AccountId("acct_1"), None)
RESOLUTION = CaseResolution(operator=AccountId("acct_1"), key_id="key_1", reason="paid by hand")


def rpc(status: RPCStatusCode) -> RPCError:
    return RPCError("no", status, b"")


def refused(kind: str) -> WorkflowUpdateFailedError:
    return WorkflowUpdateFailedError(ApplicationError("no", type=kind))


class FakeTemporal:
    """Raises what it is given, and is its own handle."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def start_workflow(self, *_what: object, **_how: object) -> None:
        raise self.error

    def get_workflow_handle(self, _workflow_id: str, **_how: object) -> "FakeTemporal":
        return self

    async def execute_update(self, *_what: object) -> None:
        raise self.error

    async def describe(self, **_how: object) -> None:
        raise self.error

    async def result(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (rpc(RPCStatusCode.INVALID_ARGUMENT), InvariantBroken),
        (rpc(RPCStatusCode.FAILED_PRECONDITION), InvariantBroken),
        (rpc(RPCStatusCode.NOT_FOUND), Unavailable),
        (rpc(RPCStatusCode.UNAVAILABLE), Unavailable),
        (RuntimeError("a lazy client cannot connect"), Unavailable),
        (TimeoutError(), Unavailable),
    ],
)
async def test_a_start_that_fails(answer: Exception, error: type[Exception]) -> None:
    with pytest.raises(error):
        await temporal.start(cast("Client", FakeTemporal(answer)), START)


async def test_a_start_whose_id_is_taken_finds_the_run() -> None:
    taken = WorkflowAlreadyStartedError(START.id, START.workflow, run_id="run-1")
    started = await temporal.start(cast("Client", FakeTemporal(taken)), START)
    assert (started.run_id, started.is_new, started.is_taken) == ("run-1", False, True)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (rpc(RPCStatusCode.FAILED_PRECONDITION), Unavailable),
        (rpc(RPCStatusCode.NOT_FOUND), NotFound),
        (rpc(RPCStatusCode.UNAVAILABLE), Unavailable),
        (RuntimeError("a lazy client cannot connect"), Unavailable),
        (TimeoutError(), Unavailable),
        (refused(update_failure.NOT_YET), Unavailable),
        (refused("AcceptedUpdateCompletedWorkflow"), Unavailable),
        (refused("CaseResolved"), ApplicationError),
    ],
)
async def test_an_update_that_fails(answer: Exception, error: type[Exception]) -> None:
    with pytest.raises(error):
        await temporal.tell(cast("Client", FakeTemporal(answer)), "case-1", CaseWorkflow.resolve, RESOLUTION, limit_s=1)


async def test_the_input_of_a_workflow_that_is_gone_is_none() -> None:
    gone, away = (cast("Any", FakeTemporal(rpc(each))) for each in (RPCStatusCode.NOT_FOUND, RPCStatusCode.UNAVAILABLE))
    assert await temporal.read_input(gone, Reconcile) is None
    with pytest.raises(Unavailable):
        await temporal.read_input(away, Reconcile)


async def test_a_workflow_that_is_gone_does_not_run() -> None:
    gone, away = (
        cast("Client", FakeTemporal(rpc(each))) for each in (RPCStatusCode.NOT_FOUND, RPCStatusCode.UNAVAILABLE)
    )
    assert not await temporal.is_running(gone, "payment-1")
    with pytest.raises(Unavailable):
        await temporal.is_running(away, "payment-1")


@pytest.mark.parametrize("answer", [rpc(RPCStatusCode.NOT_FOUND), RuntimeError("lazy"), TimeoutError()])
async def test_a_wait_that_cannot_tell_gives_none(answer: Exception) -> None:
    assert await temporal.wait(cast("Any", FakeTemporal(answer)), 1) is None


def test_a_reconciliation_with_a_key_runs_once() -> None:
    once = asked_reconciliation(Reconcile(), AccountId("acct_1"), "key")
    assert START.id == workflow_ids.RECONCILIATION_NOW != once.id
    assert (START.reuse_policy.name, once.reuse_policy.name) == ("ALLOW_DUPLICATE", "REJECT_DUPLICATE")


def test_receipts_and_cases_wait_no_longer_for_a_dead_worker_than_payments() -> None:
    receipt = Receipt(payment_hash=PaymentHash("00" * 32), node=NodeName("lnd-1"), received_msat=Msat(1))
    case = OpenCase(
        case=CaseId("case_1"),
        kind=FindingKind.DIFFERENCE,
        account="asset:lnd:lnd-1:channels",
        subject="",
        amount_msat=1,
        detail="",
        suspects=[],
    )
    assert receive_start(receipt).task_timeout == case_start(case).task_timeout == queues.TASK_TIMEOUT
