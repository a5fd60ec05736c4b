"""The story of a quote, with a fake node behind the real contract: the map, then perhaps the way itself."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from uuid import uuid4

import pytest
import pytest_asyncio
from temporalio import activity
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.failures import FailureInterceptor
from engine.contracts import queues
from engine.contracts.quote import QuoteActivities, RouteQuote, RouteRequest
from engine.domain.errors import OutcomeUnknown, Unavailable
from engine.domain.ids import NodeName
from engine.domain.money import Msat
from workflows.quote import QuoteWorkflow

pytestmark = pytest.mark.workflow

ASKED = RouteRequest(
    node=NodeName("lnd-1"),
    payee="02" + "ab" * 32,
    bolt11="lnbcrt1…",
    amount_msat=Msat(1_000_000),
    fee_limit_msat=Msat(1_000_000),
    may_probe=True,
)
BY_MAP = RouteQuote(fee_msat=Msat(1_001))
BY_PROBE = RouteQuote(fee_msat=Msat(1_020), is_probed=True)


@dataclass
class FakeNode(QuoteActivities):
    """Says what it is told to say, or raises it."""

    on_map: RouteQuote | Exception = BY_MAP
    on_the_way: RouteQuote | Exception = BY_PROBE
    asked: list[str] = field(default_factory=list)

    @activity.defn
    async def estimate_route(self, asked: RouteRequest) -> RouteQuote:
        self.asked.append("map")
        return _said(self.on_map)

    @activity.defn
    async def probe_route(self, asked: RouteRequest) -> RouteQuote:
        self.asked.append("way")
        return _said(self.on_the_way)


def _said(told: RouteQuote | Exception) -> RouteQuote:
    if isinstance(told, Exception):
        raise told
    return told


@pytest_asyncio.fixture
async def node(skipping_temporal: WorkflowEnvironment) -> AsyncIterator[FakeNode]:
    fake = FakeNode()
    interceptors = [FailureInterceptor()]
    payments = Worker(
        skipping_temporal.client, task_queue=queues.PAYMENTS, workflows=[QuoteWorkflow], interceptors=interceptors
    )
    lightning = Worker(
        skipping_temporal.client,
        task_queue=queues.lightning_queue(ASKED.node),
        activities=[fake.estimate_route, fake.probe_route],
        interceptors=interceptors,
    )
    async with payments, lightning:
        yield fake


async def ask(skipping_temporal: WorkflowEnvironment, asked: RouteRequest = ASKED) -> RouteQuote:
    return await skipping_temporal.client.execute_workflow(
        QuoteWorkflow.run, asked, id=f"quote-{uuid4()}", task_queue=queues.PAYMENTS
    )


async def test_the_fee_that_a_probe_found_is_the_answer(skipping_temporal: WorkflowEnvironment, node: FakeNode) -> None:
    assert await ask(skipping_temporal) == BY_PROBE
    assert node.asked == ["map", "way"]


async def test_a_payee_that_must_not_be_probed_is_not(skipping_temporal: WorkflowEnvironment, node: FakeNode) -> None:
    assert await ask(skipping_temporal, replace(ASKED, may_probe=False)) == BY_MAP
    assert node.asked == ["map"]


async def test_nothing_is_sent_where_the_map_has_no_route(
    skipping_temporal: WorkflowEnvironment, node: FakeNode
) -> None:
    node.on_map = RouteQuote(trouble="no_route")
    assert await ask(skipping_temporal) == node.on_map
    assert node.asked == ["map"]


async def test_a_probe_that_fails_leaves_the_maps_word_and_the_reason(
    skipping_temporal: WorkflowEnvironment, node: FakeNode
) -> None:
    node.on_the_way = RouteQuote(trouble="probe_unanswered")
    assert await ask(skipping_temporal) == replace(BY_MAP, trouble="probe_unanswered")


@pytest.mark.parametrize("error", [OutcomeUnknown("the line went dead"), Unavailable("the node is down")])
async def test_a_probe_of_which_nobody_knows_is_not_repeated(
    skipping_temporal: WorkflowEnvironment, node: FakeNode, error: Exception
) -> None:
    node.on_the_way = error
    assert await ask(skipping_temporal) == BY_MAP
    assert node.asked == ["map", "way"]


async def test_a_node_that_does_not_answer_is_said_to_be_away(
    skipping_temporal: WorkflowEnvironment, node: FakeNode
) -> None:
    node.on_map = Unavailable("the node is down")
    assert await ask(skipping_temporal) == RouteQuote(trouble="node_unavailable")
    assert node.asked == ["map"] * 3
