"""A node's pump: three long activities that turn what the node streams into workflow starts and signals.

The workflow id makes it a singleton per node. When one activity ends, all begin anew in a fresh run, which keeps the
history short. When one breaks, its retry policy brings it back. One that fails for good (wrong macaroon, another node)
calls an operator, and the others go on meanwhile. What a pump delivers twice counts once, because of workflow ids and
ledger references. What it misses is found by the sweep and by the workflows' own timers.
"""

from temporalio import workflow

from workflows.policies import PUMP
from workflows.streams import run_until_one_ends

with workflow.unsafe.imports_passed_through():
    from engine.contracts import queues
    from engine.contracts.pump import PumpActivities, PumpInput


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
        await run_until_one_ends(streams, f"a stream of `{pump.node}` has failed; see its activity")
        workflow.continue_as_new(pump)
