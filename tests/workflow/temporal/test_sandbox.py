"""The sandbox that the tests of workflows run in: it is there, and it refuses what a replay would not find again."""

import random
from uuid import uuid4

import pytest
from temporalio import workflow
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import RestrictedWorkflowAccessError

pytestmark = pytest.mark.workflow


@workflow.defn
class CarelessWorkflow:
    """Throws a die."""

    @workflow.run
    async def run(self) -> str:
        try:
            return str(random.randint(1, 6))
        except RestrictedWorkflowAccessError:
            return "refused"


async def test_chance_is_refused(skipping_temporal: WorkflowEnvironment) -> None:
    client, queue = skipping_temporal.client, str(uuid4())
    async with Worker(client, task_queue=queue, workflows=[CarelessWorkflow]):
        assert await client.execute_workflow(CarelessWorkflow.run, id=queue, task_queue=queue) == "refused"
