"""Worker processes of the bench: `python -m infra.bench.workers bare` or `… waiting`.

    bare      workflows with one empty local activity: what Temporal and its SDK cost when nothing is done
    waiting   our payment workflow, whose activities find no money and no node and say "in flight" for ever

Both poll queues of their own with the settings of `worker.py`, so that only what is inside the workflow differs.
"""

import asyncio
import signal
import sys
from datetime import timedelta

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.worker import PollerBehaviorAutoscaling, UnsandboxedWorkflowRunner, Worker

from activities.failures import FailureInterceptor
from engine.contracts import converter, queues
from engine.contracts.payment import (
    AttemptReport,
    LightningAttempt,
    NodeVerdict,
    OpenedPayment,
    PaymentActivities,
    PaymentOutcome,
    PaymentRequest,
    PaymentStatus,
    ReleasePayment,
    SendingActivities,
    SettlePayment,
)
from engine.domain.errors import InvariantBroken
from engine.domain.ids import NodeName, PaymentHash
from engine.settings import WorkerSettings, load_settings
from infra.bench.bare import BareWorkflow, nothing
from workflows.payment import PaymentWorkflow

BARE, WAITING = "bench-bare", "bench-waiting"
NODE = NodeName("bench")
_STICKY = timedelta(seconds=2)
_GRACE = timedelta(seconds=0.1)
_LOOK_AGAIN = timedelta(minutes=10)


class NoMoney(PaymentActivities):
    """Holds nothing and says that it did."""

    @activity.defn
    async def open_payment(self, request: PaymentRequest) -> OpenedPayment:
        """As if held."""
        attempt = LightningAttempt(
            payment_id=request.payment_id,
            node=NODE,
            bolt11="",
            payment_hash=PaymentHash("0" * 64),
            amount_msat=request.amount_msat,
            amount_in_invoice=False,
            max_fee_msat=request.max_fee_msat,
            attempt=1,
        )
        outcome = PaymentOutcome(body_hash=request.body_hash, status=PaymentStatus.PENDING)
        return OpenedPayment(outcome=outcome, attempt=attempt)

    @activity.defn
    async def settle_payment(self, settle: SettlePayment) -> PaymentOutcome:
        """Never called."""
        raise InvariantBroken(f"{settle.payment_id} was never sent")

    @activity.defn
    async def release_payment(self, release: ReleasePayment) -> PaymentOutcome:
        """Never called."""
        raise InvariantBroken(f"{release.payment_id} was never sent")


class NoNode(SendingActivities):
    """Sends nothing; the watch waits like that of a payee who takes his time."""

    @activity.defn
    async def send_payment(self, attempt: LightningAttempt) -> AttemptReport:  # noqa: ARG002 - the contract's
        """In flight."""
        return AttemptReport(verdict=NodeVerdict.IN_FLIGHT)

    @activity.defn
    async def watch_payment(self, attempt: LightningAttempt) -> AttemptReport:
        """No final word yet: look again in ten minutes."""
        raise ApplicationError(
            f"still in flight on {attempt.node}",
            type="InFlight",
            next_retry_delay=_LOOK_AGAIN,
            category=ApplicationErrorCategory.BENIGN,
        )


async def main(kind: str) -> None:
    """Run until SIGTERM."""
    settings = load_settings(WorkerSettings)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    client = await Client.connect(
        settings.temporal_address, namespace=settings.temporal_namespace, data_converter=converter.DATA_CONVERTER
    )
    workers = [_workflows(client, settings, kind)]
    if kind == "waiting":
        node = NoNode()
        workers.append(
            Worker(client, task_queue=queues.lightning_queue(NODE), activities=[node.send_payment, node.watch_payment])
        )
    running = [asyncio.create_task(worker.run()) for worker in workers]
    if settings.ready_file is not None:
        await asyncio.to_thread(settings.ready_file.touch)
    await stop.wait()
    await asyncio.gather(*(worker.shutdown() for worker in workers))
    await asyncio.gather(*running)


def _workflows(client: Client, settings: WorkerSettings, kind: str) -> Worker:
    return Worker(
        client,
        task_queue=BARE if kind == "bare" else WAITING,
        workflows=[BareWorkflow if kind == "bare" else PaymentWorkflow],
        activities=[nothing] if kind == "bare" else [NoMoney().open_payment],
        workflow_runner=UnsandboxedWorkflowRunner(),
        interceptors=[FailureInterceptor()],
        max_concurrent_workflow_tasks=settings.workflow_task_slots,
        max_concurrent_local_activities=4 * settings.workflow_task_slots,
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(initial=4),
        sticky_queue_schedule_to_start_timeout=_STICKY,
        activity_task_poller_behavior=PollerBehaviorAutoscaling(initial=1),
        graceful_shutdown_timeout=_GRACE,
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
