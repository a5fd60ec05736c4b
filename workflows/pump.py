"""A node's pump: three long activities that turn what the node streams into workflow starts and signals.

The workflow id makes it a singleton per node. When one activity ends, all begin anew in a fresh run, which keeps the
history short. When one breaks, its retry policy brings it back. What a pump delivers twice counts once, because of
workflow ids and ledger references. What it misses is found by the sweep and by the workflows' own timers.
"""

from datetime import timedelta

from temporalio import workflow

from workflows.policies import PUMP

with workflow.unsafe.imports_passed_through():
    from engine.contracts import queues, search_attributes
    from engine.contracts.pump import PumpActivities, PumpInput


_PAUSE = timedelta(minutes=1)


@workflow.defn
class LndPumpWorkflow:
    """Runs for ever, one per node."""

    @workflow.run
    async def run(self, pump: PumpInput) -> None:
        queue = queues.lightning_queue(pump.node)
        workflow.set_current_details(f"following invoices and payments of `{pump.node}`")
        streams = [
            workflow.start_activity_method(PumpActivities.pump_invoices, pump, task_queue=queue, **PUMP),
            workflow.start_activity_method(PumpActivities.pump_payments, pump, task_queue=queue, **PUMP),
            workflow.start_activity_method(PumpActivities.tend_node, pump, task_queue=queue, **PUMP),
        ]
        await workflow.wait_condition(lambda: any(stream.done() for stream in streams))
        if any(stream.done() and stream.exception() is not None for stream in streams):
            await _wait_for_mending(pump)
        for stream in streams:
            stream.cancel()
        workflow.continue_as_new(pump)


async def _wait_for_mending(pump: PumpInput) -> None:
    """Call an operator for a stream that fails for good (wrong macaroon, another node). The others go on meanwhile."""
    workflow.set_current_details(f"**needs an operator**: a stream of `{pump.node}` has failed; see its activity")
    workflow.upsert_search_attributes([search_attributes.NEEDS_OPERATOR.value_set(True)])
    await workflow.sleep(_PAUSE, summary="an operator must look; then it is tried again")
    workflow.upsert_search_attributes([search_attributes.NEEDS_OPERATOR.value_set(False)])
