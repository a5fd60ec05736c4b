"""The long activities of a pump, which run side by side until one of them ends."""

from collections.abc import Sequence
from datetime import timedelta

from temporalio import workflow
from temporalio.workflow import ActivityHandle

with workflow.unsafe.imports_passed_through():
    from engine.contracts import search_attributes

_PAUSE = timedelta(minutes=1)


async def run_until_one_ends(streams: Sequence[ActivityHandle[None]], trouble: str) -> None:
    """Wait until one has ended, then cancel all. One that has failed for good calls an operator first."""
    await workflow.wait_condition(lambda: any(stream.done() for stream in streams))
    if any(stream.done() and stream.exception() is not None for stream in streams):
        await wait_for_mending(trouble)
    for stream in streams:
        stream.cancel()


async def wait_for_mending(trouble: str) -> None:
    """Call an operator for what fails for good, and say what it is. What has not failed goes on meanwhile."""
    workflow.set_current_details(f"**needs an operator**: {trouble}")
    workflow.upsert_search_attributes([search_attributes.NEEDS_OPERATOR.value_set(True)])
    await workflow.sleep(_PAUSE, summary="an operator must look; then it is tried again")
    workflow.upsert_search_attributes([search_attributes.NEEDS_OPERATOR.value_set(False)])
