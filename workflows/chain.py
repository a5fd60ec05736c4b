"""The chain pump of a wallet: adopts it once, then follows the chain and keeps the pool of addresses full.

The workflow id makes it a singleton, and `bank.chains.epoch` keeps an activity that is thought dead from writing. When
one activity ends, both begin anew in a fresh run, which keeps the history short.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError

from workflows.policies import NODE, PUMP

with workflow.unsafe.imports_passed_through():
    from engine.contracts import queues, search_attributes
    from engine.contracts.chain import AddressPoolActivities, AdoptionActivities, ChainPumpActivities, ChainPumpInput

_PAUSE = timedelta(minutes=1)


@workflow.defn
class ChainPumpWorkflow:
    """Runs for ever, one per wallet."""

    @workflow.run
    async def run(self, pump: ChainPumpInput) -> None:
        workflow.set_current_details(f"waiting for bitcoind, to adopt the wallet `{pump.wallet}`")
        queue = queues.ONCHAIN
        try:
            await workflow.execute_activity_method(AdoptionActivities.adopt_wallet, pump, task_queue=queue, **NODE)
        except ActivityError:
            await _wait_for_mending(pump)
            workflow.continue_as_new(pump)
        workflow.set_current_details(f"following the chain for `{pump.wallet}`")
        streams = [
            workflow.start_activity_method(ChainPumpActivities.follow_chain, pump, task_queue=queue, **PUMP),
            workflow.start_activity_method(AddressPoolActivities.tend_pool, pump, task_queue=queue, **PUMP),
        ]
        await workflow.wait_condition(lambda: any(stream.done() for stream in streams))
        if any(stream.done() and stream.exception() is not None for stream in streams):
            await _wait_for_mending(pump)
        for stream in streams:
            stream.cancel()
        workflow.continue_as_new(pump)


async def _wait_for_mending(pump: ChainPumpInput) -> None:
    """Call an operator for what fails for good: another chain, another wallet, unforeseen words of bitcoind."""
    workflow.set_current_details(f"**needs an operator**: `{pump.wallet}` cannot be followed; see the failed activity")
    workflow.upsert_search_attributes([search_attributes.NEEDS_OPERATOR.value_set(True)])
    await workflow.sleep(_PAUSE, summary="an operator must look; then it is tried again")
    workflow.upsert_search_attributes([search_attributes.NEEDS_OPERATOR.value_set(False)])
