"""Composition root of the worker processes: connections, and one Temporal worker per task queue.

    payments           workflow code and the ledger's activities
    lightning-<node>   everything that calls this one node
    onchain            everything that calls bitcoind

Which activities a queue has is said in `activities/registry.py`.

Any number of these processes may run. Each makes sure at start, and again every minute, that what must exist does: the
search attributes, the pumps, the schedules, and that every node is in the books. SIGTERM lets running activities
end, then leaves; what was not finished goes on in another process.
"""

import asyncio
import gc
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from datetime import timedelta

import structlog
from temporalio.client import Client, Interceptor
from temporalio.service import RPCError
from temporalio.worker import PollerBehaviorAutoscaling, UnsandboxedWorkflowRunner, Worker

from activities import announcements, bootstrap, failures, metrics, registry
from activities.chain.registry import Onchain
from engine.clients.announcements import Announcer
from engine.contracts import converter, queues
from engine.domain.errors import EngineError, Unavailable
from engine.domain.ids import NodeName
from engine.ledger.database import Pool, open_pool
from engine.settings import WorkerSettings, load_settings
from engine.telemetry import start_telemetry, temporal_runtime
from workflows.registry import find_workflows

log = structlog.get_logger("worker")

_GRACE = timedelta(seconds=5)
_NODE_GRACE = timedelta(seconds=0.5)
"""Short: a pump never ends by itself, and a send that is let go of is found again by its next try."""
_STICKY = timedelta(seconds=2)
"""How long a workflow waits for the process that has it in memory before another one takes it from its history."""
_STANDING_EVERY_S = 60
_SETTLING_S = 0.3
_RETRY_S = 0.5
_SDK_REST_S = 0.3
"""The SDK's native threads may abort an interpreter that leaves at once (seen in one of three runs)."""


async def main() -> None:
    """Run until SIGTERM or SIGINT."""
    gc.freeze()  # what the imports left lives for ever: the collector would walk it, for up to 90 ms a pass
    settings = load_settings(WorkerSettings)
    interceptors = start_telemetry(settings, "millrace-worker")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        connecting = asyncio.create_task(_connect(settings, interceptors))
        if not await _unless(stop, connecting):
            return
        pool, client = connecting.result()
        stack.push_async_callback(pool.close)
        nodes = [registry.NodeClients(NodeName(name), node, pool) for name, node in settings.nodes.items()]
        for channel in (each for node in nodes for each in node.channels):
            stack.push_async_callback(channel.close)
        announcer = Announcer(settings.redis_url.get_secret_value())
        stack.push_async_callback(announcer.close)
        onchain = Onchain(settings)
        stack.push_async_callback(onchain.close)
        workers = [
            _payments_worker(client, pool, nodes, announcer, settings),
            _onchain_worker(client, pool, onchain),
            *(_node_worker(client, pool, node, settings) for node in nodes),
        ]
        running = [asyncio.create_task(worker.run()) for worker in workers]
        standing = asyncio.create_task(_keep_standing(client, pool, settings))
        stopping = asyncio.create_task(stop.wait())
        log.info("worker runs", queues=len(workers))
        await asyncio.wait([*running, stopping], return_when=asyncio.FIRST_COMPLETED)
        log.info("worker stops", asked=stop.is_set())
        standing.cancel()
        stopping.cancel()
        await asyncio.gather(*(worker.shutdown() for worker in workers))
        await asyncio.gather(*running)  # a worker that broke ends the process with its error
    await asyncio.sleep(_SDK_REST_S)


def _payments_worker(
    client: Client,
    pool: Pool,
    nodes: Sequence[registry.NodeClients],
    announcer: Announcer,
    settings: WorkerSettings,
) -> Worker:
    return Worker(
        client,
        task_queue=queues.PAYMENTS,
        workflows=find_workflows(),
        activities=registry.payment_activities(client, pool, nodes, announcer, settings),
        workflow_runner=UnsandboxedWorkflowRunner(),  # tests/workflow run the same code in the sandbox: decision 19
        interceptors=[
            announcements.AnnouncingInterceptor(announcer),
            metrics.CountingInterceptor(),
            failures.FailureInterceptor(),
        ],
        max_concurrent_workflow_tasks=settings.workflow_task_slots,
        max_concurrent_local_activities=4 * settings.workflow_task_slots,
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(initial=4),
        sticky_queue_schedule_to_start_timeout=_STICKY,
        activity_task_poller_behavior=PollerBehaviorAutoscaling(initial=1),
        graceful_shutdown_timeout=_GRACE,
    )


def _node_worker(client: Client, pool: Pool, node: registry.NodeClients, settings: WorkerSettings) -> Worker:
    return Worker(
        client,
        task_queue=queues.lightning_queue(node.name),
        activities=registry.node_activities(client, pool, node, settings),
        interceptors=[metrics.CountingInterceptor(), failures.FailureInterceptor()],
        max_concurrent_activities=500,  # a slow payee occupies a slot for seconds; it must not slow the others
        activity_task_poller_behavior=PollerBehaviorAutoscaling(initial=2),
        graceful_shutdown_timeout=_NODE_GRACE,
    )


def _onchain_worker(client: Client, pool: Pool, onchain: Onchain) -> Worker:
    return Worker(
        client,
        task_queue=queues.ONCHAIN,
        activities=registry.activities_of(*onchain.implementations(client, pool)),
        interceptors=[metrics.CountingInterceptor(), failures.FailureInterceptor()],
        activity_task_poller_behavior=PollerBehaviorAutoscaling(initial=1),
        graceful_shutdown_timeout=_NODE_GRACE,
    )


async def _connect(settings: WorkerSettings, interceptors: Sequence[Interceptor]) -> tuple[Pool, Client]:
    """Wait for Postgres and Temporal for as long as it takes: a stack may come up in any order."""
    runtime = temporal_runtime(settings)
    while True:
        try:
            pool = await open_pool(settings.postgres_dsn.get_secret_value(), max_size=settings.postgres_pool_size)
            break
        except Unavailable as error:
            log.warning("waiting for Postgres", reason=error.detail)
            await asyncio.sleep(_RETRY_S)
    while True:
        try:
            return pool, await Client.connect(
                settings.temporal_address,
                namespace=settings.temporal_namespace,
                data_converter=converter.DATA_CONVERTER,
                interceptors=list(interceptors),
                runtime=runtime,
            )
        except (RPCError, RuntimeError) as error:
            log.warning("waiting for Temporal", reason=str(error))
            await asyncio.sleep(_RETRY_S)


async def _unless(stop: asyncio.Event, task: asyncio.Task[object]) -> bool:
    """True when the task is done, False when we were told to stop before that."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([stopping, task], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return not stop.is_set()


async def _keep_standing(client: Client, pool: Pool, settings: WorkerSettings) -> None:
    """Make sure that what must exist does; tell who started us as soon as it does."""
    nodes, ready_file, ready = [NodeName(name) for name in settings.nodes], settings.ready_file, False
    while True:
        try:
            stands = await bootstrap.ensure_standing(client, pool, nodes, settings.hot_wallet)
            if stands and not ready and ready_file is not None:
                await asyncio.to_thread(ready_file.touch)
            ready = ready or stands
        except (RPCError, EngineError) as error:
            log.warning("cannot check what must exist; trying again", reason=str(error))
        await asyncio.sleep(_STANDING_EVERY_S if ready else _SETTLING_S)


if __name__ == "__main__":
    asyncio.run(main())
