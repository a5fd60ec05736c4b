"""The janitor: finds every row that waits for a workflow and has none, and starts that workflow again.

A schedule starts it, never two at once. A workflow may be ended by hand or by a limit of Temporal, or be lost with
Temporal's data. Its row is still there, with its money held.
"""

from temporalio import workflow

from workflows.policies import TIDY

with workflow.unsafe.imports_passed_through():
    from engine.contracts import search_attributes
    from engine.contracts.janitor import JanitorActivities, Round, Tidied


@workflow.defn
class JanitorWorkflow:
    """One round. The next one looks again at rows that this one could not help."""

    @workflow.run
    async def run(self, walk: Round) -> Tidied:
        tidied = await workflow.execute_activity_method(JanitorActivities.tidy_up, walk, **TIDY)
        begun = [f"**{count}** of {kind}" for kind, count in sorted(tidied.begun.items()) if count]
        lines = [f"begun again: {', '.join(begun) or 'nothing'}"]
        lines += [f"- **needs an operator**, {kind}: {why}" for kind, why in sorted(tidied.failed.items())]
        workflow.set_current_details("\n".join(lines))
        workflow.upsert_search_attributes(
            [
                search_attributes.STATUS.value_set("tidied"),
                search_attributes.NEEDS_OPERATOR.value_set(bool(tidied.failed)),
            ]
        )
        return tidied
