"""Starts workflows from a workflow that does not wait for them."""

from contextlib import suppress
from typing import Any

from temporalio import workflow
from temporalio.exceptions import WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    from engine.contracts.workflow_start import WorkflowStart


async def start_child(start: WorkflowStart[Any]) -> None:
    """Start the workflow, unless its policies refuse a second one with this id. It goes on when its parent ends."""
    with suppress(WorkflowAlreadyStartedError):
        await workflow.start_child_workflow(
            start.workflow,
            start.argument,
            id=start.id,
            id_reuse_policy=start.reuse_policy,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            task_timeout=start.task_timeout,
            static_summary=start.summary,
            search_attributes=start.attributes,
        )
