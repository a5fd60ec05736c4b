"""The chain pump of a wallet: adopts it once, then follows the chain and keeps the pool of addresses full.

The workflow id makes it a singleton, and `bank.chains.epoch` keeps an activity that is thought dead from writing. When
one activity ends, both begin anew in a fresh run, which keeps the history short. What fails for good calls an operator:
another chain, another wallet, unforeseen words of bitcoind.
"""

from temporalio import workflow
from temporalio.exceptions import ActivityError

from workflows.policies import NODE, PUMP
from workflows.streams import run_until_one_ends, wait_for_mending

with workflow.unsafe.imports_passed_through():
    from engine.contracts import queues
    from engine.contracts.chain import AddressPoolActivities, AdoptionActivities, ChainPumpActivities, ChainPumpInput


@workflow.defn
class ChainPumpWorkflow:
    """Runs for ever, one per wallet."""

    @workflow.run
    async def run(self, pump: ChainPumpInput) -> None:
        workflow.set_current_details(f"waiting for bitcoind, to adopt the wallet `{pump.wallet}`")
        queue = queues.ONCHAIN
        trouble = f"`{pump.wallet}` cannot be followed; see the failed activity"
        try:
            await workflow.execute_activity_method(AdoptionActivities.adopt_wallet, pump, task_queue=queue, **NODE)
        except ActivityError:
            await wait_for_mending(trouble)
            workflow.continue_as_new(pump)
        workflow.set_current_details(f"following the chain for `{pump.wallet}`")
        streams = [
            workflow.start_activity_method(ChainPumpActivities.follow_chain, pump, task_queue=queue, **PUMP),
            workflow.start_activity_method(AddressPoolActivities.tend_pool, pump, task_queue=queue, **PUMP),
        ]
        await run_until_one_ends(streams, trouble)
        workflow.continue_as_new(pump)
