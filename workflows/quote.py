"""What a route to a payee costs: by the node's graph, and then, where it is safe, by a probe.

    estimate ──┬─ no route known                        that is the answer
               ├─ a probe is not safe                   the estimate
               └─ probe ──┬─ it reached the payee       the fee of that very route
                          ├─ it did not                 the estimate, and the obstacle
                          └─ nobody can tell            the estimate

No money is held and nothing is stored, so nothing here waits: the quote leaves out what a node does not answer at once.
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
    """Asks once. Others who ask for the same route meanwhile find this run."""

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
