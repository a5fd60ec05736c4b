"""Workflows of a `HotBank`: ended by hand, brought back by the janitor, calling for operators."""

import secrets

from temporalio.service import RPCError, RPCStatusCode

from engine.contracts import queues, workflow_ids
from engine.contracts.janitor import Round
from tests.fixtures.hot_bank import HotBank
from tests.fixtures.stack import eventually


async def terminate(hot: HotBank, workflow_id: str) -> None:
    """End it at once. Raises RPCError when it does not run."""
    await (await hot.temporal()).get_workflow_handle(workflow_id).terminate("by hand, in a test")


async def runs(hot: HotBank, workflow_id: str) -> bool:
    """Whether it does."""
    try:
        told = await (await hot.temporal()).get_workflow_handle(workflow_id).describe()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return False
    return told.status is not None and told.status.name == "RUNNING"


async def tidied(hot: HotBank, *workflow_id: str) -> None:
    """Have the janitor come until these run again."""
    temporal = await hot.temporal()

    async def back() -> bool | None:
        janitor = f"{workflow_ids.JANITOR}-{secrets.token_hex(8)}"
        await temporal.execute_workflow(
            "JanitorWorkflow", Round(older_than_s=0), id=janitor, task_queue=queues.PAYMENTS
        )
        return True if all([await runs(hot, each) for each in workflow_id]) else None

    await eventually(back, f"{workflow_id} to be begun again")


async def calls_operators(hot: HotBank, workflow_id: str) -> None:
    """Wait until it does."""
    temporal = await hot.temporal()

    async def look() -> bool | None:
        query = f'NeedsOperator = true AND WorkflowId = "{workflow_id}"'
        return True if [each async for each in temporal.list_workflows(query)] else None

    await eventually(look, "operators to be called")
