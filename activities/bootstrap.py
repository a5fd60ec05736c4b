"""Creates what must exist in Temporal while workers run: search attributes, pumps, schedules, adopted nodes.

Each step looks first, or Temporal refuses it as a repeat. So any number of workers may run all steps at any time.
"""

from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleState,
)
from temporalio.exceptions import WorkflowAlreadyStartedError

from engine.bank.chain.cursor import find_chain
from engine.bank.node.node import find_pubkey
from engine.contracts import batcher, chain, invoice, janitor, node, pump, queues, reconciliation, search_attributes
from engine.contracts.workflow_start import WorkflowStart, start_workflow
from engine.domain.ids import NodeName
from engine.domain.withdrawal.withdrawal import Speed
from engine.ledger.database import Pool, borrowed, translated

_SWEEP_EVERY = timedelta(minutes=1)
_TIDY_EVERY = timedelta(minutes=1)
_RECONCILE_EVERY = timedelta(hours=1)


async def ensure_standing(client: Client, pool: Pool, nodes: list[NodeName], wallet: str) -> bool:
    """Create what is missing; True when everything exists, False while a node or the wallet is still being adopted.

    Raises RPCError or Unavailable when Temporal or Postgres is away. The next call does the rest.
    """
    await _ensure_search_attributes(client)
    stands = True
    for name in nodes:
        with translated():
            async with pool.acquire() as conn:
                adopted = await find_pubkey(conn, name)
        if adopted is not None:
            await _ensure_running(client, pump.pump_start(name))
            await _ensure_schedule(
                client,
                invoice.sweep_start(name),
                every=_SWEEP_EVERY,
                note="finds receipts that the pump may have missed, and closes expired invoices",
            )
        else:
            await _ensure_running(client, node.adoption_start(name))
            stands = False
    await _ensure_running(client, chain.chain_pump_start(wallet))
    for speed in Speed:
        await _ensure_running(client, batcher.batcher_start(batcher.Batcher(wallet=wallet, speed=speed)))
    async with borrowed(pool) as conn:
        stands = stands and await find_chain(conn, wallet) is not None
    await _ensure_schedule(
        client,
        reconciliation.scheduled_reconciliation(),
        every=_RECONCILE_EVERY,
        jitter=timedelta(minutes=1),
        note="books − nodes = 0, or a case is opened for an operator; moves no money",
    )
    await _ensure_schedule(
        client,
        janitor.janitor_start(),
        every=_TIDY_EVERY,
        note="a row that is not final has a workflow, or is given one",
    )
    return stands


async def _ensure_search_attributes(client: Client) -> None:
    listed = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    missing = {
        key.name: IndexedValueType.ValueType(key.indexed_value_type)
        for key in search_attributes.ALL
        if key.name not in listed.custom_attributes
    }
    if missing:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
        )


async def _ensure_running(client: Client, start: WorkflowStart[Any]) -> None:
    with suppress(WorkflowAlreadyStartedError):
        await start_workflow(client, start)


async def _ensure_schedule(
    client: Client,
    start: WorkflowStart[Any],
    *,
    every: timedelta,
    note: str,
    jitter: timedelta = timedelta(seconds=5),
) -> None:
    """Create a schedule with the id of its runs, or find it. Two runs never overlap.

    After a stop one missed run is caught up, because each run looks at everything.
    """
    action = ScheduleActionStartWorkflow(
        start.workflow,
        start.argument,
        id=start.id,
        task_queue=queues.PAYMENTS,
        static_summary=start.summary,
        typed_search_attributes=start.attributes,
    )
    try:
        await client.create_schedule(
            start.id,
            Schedule(
                action=action,
                spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)], jitter=jitter),
                policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=every),
                state=ScheduleState(note=note),
            ),
        )
    except ScheduleAlreadyRunningError:
        return
