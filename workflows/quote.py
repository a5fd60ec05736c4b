"""What the way to a payee costs: the node's map is asked, and then, where it is safe, the way itself.

    estimate ──┬─ no way known                          that is told
               ├─ a probe is not safe                   the map's answer
               └─ probe ──┬─ it reached the payee       the fee of that very way
                          ├─ it did not                 the map's answer, and what was in the way
                          └─ nobody can tell            the map's answer

No money is held and nothing is stored, so nothing here waits: what a node does not tell at once is not told.
"""

from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import ActivityError

from workflows.policies import GLANCE, PROBE

with workflow.unsafe.imports_passed_through():
    from engine.contracts import queues, search_attributes
    from engine.contracts.quote import QuoteActivities, RouteQuote, RouteRequest


@workflow.defn
class QuoteWorkflow:
    """Asks once. Who asks for the same way meanwhile finds this run."""

    @workflow.run
    async def run(self, asked: RouteRequest) -> RouteQuote:
        quote = await self._ask(asked)
        fee = "no way found" if quote.fee_msat is None else f"{quote.fee_msat:,} msat"
        known = "probed" if quote.is_probed else "by the node's map"
        workflow.set_current_details(f"**{fee}**, {known}" + (f" ({quote.trouble})" if quote.trouble else ""))
        workflow.upsert_search_attributes([search_attributes.STATUS.value_set("quoted")])
        return quote

    async def _ask(self, asked: RouteRequest) -> RouteQuote:
        queue = queues.lightning_queue(asked.node)
        try:
            found = await workflow.execute_activity_method(
                QuoteActivities.estimate_route, asked, task_queue=queue, **GLANCE
            )
        except ActivityError:
            return RouteQuote(trouble="node_unavailable")
        if found.fee_msat is None or not asked.may_probe:
            return found
        try:
            probed = await workflow.execute_activity_method(
                QuoteActivities.probe_route, asked, task_queue=queue, **PROBE
            )
        except ActivityError:
            return found
        return probed if probed.is_probed else replace(found, trouble=probed.trouble)
