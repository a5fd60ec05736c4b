"""What must exist in Temporal while workers run: search attributes, a pump per node, schedules, adopted nodes.

Everything here looks first or is refused as a repeat, so any number of workers may do it at any time.
"""

from datetime import timedelta

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
from temporalio.common import (
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError

from engine.bank.node import find_pubkey
from engine.contracts import queues, search_attributes, workflow_ids
from engine.contracts.invoice import SweepPage
from engine.contracts.janitor import Round
from engine.contracts.node import AdoptNode
from engine.contracts.pump import PumpInput
from engine.contracts.reconciliation import Reconcile
from engine.domain.ids import NodeName
from engine.ledger.database import Pool, translated

_KEYWORD, _INT, _BOOL = (
    IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    IndexedValueType.INDEXED_VALUE_TYPE_INT,
    IndexedValueType.INDEXED_VALUE_TYPE_BOOL,
)
_SEARCH_ATTRIBUTES = {
    search_attributes.STATUS.name: _KEYWORD,
    search_attributes.KIND.name: _KEYWORD,
    search_attributes.ACCOUNT.name: _KEYWORD,
    search_attributes.PAYMENT_HASH.name: _KEYWORD,
    search_attributes.AMOUNT_SAT.name: _INT,
    search_attributes.NEEDS_OPERATOR.name: _BOOL,
}
_SWEEP_EVERY = timedelta(minutes=1)
_TIDY_EVERY = timedelta(minutes=1)
_RECONCILE_EVERY = timedelta(hours=1)


async def ensure_standing(client: Client, pool: Pool, nodes: list[NodeName]) -> bool:
    """Whether all of it stands; False while a node is still being adopted.

    Raises RPCError or Unavailable when a part is away; the next call does the rest.
    """
    await _ensure_search_attributes(client)
    stands = True
    for node in nodes:
        with translated():
            async with pool.acquire() as conn:
                adopted = await find_pubkey(conn, node)
        if adopted is not None:
            await _ensure_pump(client, node)
            await _ensure_sweep(client, node)
        else:
            await _ensure_adoption(client, node)
            stands = False
    await _ensure_reconciliation(client)
    await _ensure_janitor(client)
    return stands


async def _ensure_search_attributes(client: Client) -> None:
    listed = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    missing = {name: kind for name, kind in _SEARCH_ATTRIBUTES.items() if name not in listed.custom_attributes}
    if missing:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
        )


async def _ensure_adoption(client: Client, node: NodeName) -> None:
    try:
        await client.start_workflow(
            "AdoptNodeWorkflow",
            AdoptNode(node=node),
            id=workflow_ids.adopt_node(node),
            task_queue=queues.PAYMENTS,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            static_summary=f"take {node} into the books",
            search_attributes=_kind("adopt-node"),
        )
    except WorkflowAlreadyStartedError:
        return


async def _ensure_pump(client: Client, node: NodeName) -> None:
    await client.start_workflow(
        "LndPumpWorkflow",
        PumpInput(node=node),
        id=workflow_ids.pump(node),
        task_queue=queues.PAYMENTS,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        static_summary=f"follow invoices and payments of {node}",
        search_attributes=_kind("pump"),
    )


async def _ensure_sweep(client: Client, node: NodeName) -> None:
    await _ensure_schedule(
        client,
        ScheduleActionStartWorkflow(
            "InvoiceSweepWorkflow",
            SweepPage(node=node),
            id=workflow_ids.invoice_sweep(node),
            task_queue=queues.PAYMENTS,
            static_summary=f"ask {node} about overdue invoices",
            typed_search_attributes=_kind("invoice-sweep"),
        ),
        every=_SWEEP_EVERY,
        note="finds receipts that the pump may have missed, and closes expired invoices",
    )


async def _ensure_reconciliation(client: Client) -> None:
    await _ensure_schedule(
        client,
        ScheduleActionStartWorkflow(
            "ReconciliationWorkflow",
            Reconcile(),
            id=workflow_ids.RECONCILIATION,
            task_queue=queues.PAYMENTS,
            static_summary="hold the books against every node",
            typed_search_attributes=_kind("reconciliation"),
        ),
        every=_RECONCILE_EVERY,
        jitter=timedelta(minutes=1),
        note="books − nodes = 0, or a case is opened for an operator; moves no money",
    )


async def _ensure_janitor(client: Client) -> None:
    await _ensure_schedule(
        client,
        ScheduleActionStartWorkflow(
            "JanitorWorkflow",
            Round(),
            id=workflow_ids.JANITOR,
            task_queue=queues.PAYMENTS,
            static_summary="begin again whatever waits for a workflow that is gone",
            typed_search_attributes=_kind("janitor"),
        ),
        every=_TIDY_EVERY,
        note="a row that is not final has a workflow, or is given one",
    )


async def _ensure_schedule(
    client: Client,
    action: ScheduleActionStartWorkflow,
    *,
    every: timedelta,
    note: str,
    jitter: timedelta = timedelta(seconds=5),
) -> None:
    """Under the id of its runs, of which two never overlap.

    Of runs that a stop has missed one is made up for, not each of them: a run looks at all there is.
    """
    try:
        await client.create_schedule(
            action.id,
            Schedule(
                action=action,
                spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)], jitter=jitter),
                policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=every),
                state=ScheduleState(note=note),
            ),
        )
    except ScheduleAlreadyRunningError:
        return


def _kind(kind: str) -> TypedSearchAttributes:
    return TypedSearchAttributes([SearchAttributePair(search_attributes.KIND, kind)])
