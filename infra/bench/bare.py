"""The least that a workflow can do, in a file that loads as quickly as a workflow's file should.

Temporal's sandbox loads it anew for each workflow, as it does ours.
"""

from temporalio import activity, workflow

from workflows.policies import LEDGER


@activity.defn
async def nothing() -> None:
    """Do nothing."""


@workflow.defn
class BareWorkflow:
    """The least that a workflow with one local activity can do."""

    @workflow.run
    async def run(self) -> None:
        """Run the activity."""
        await workflow.execute_local_activity(nothing, **LEDGER)
