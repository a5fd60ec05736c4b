"""What a worker process registers is found, so nothing can be forgotten."""

import ast

import pytest
from temporalio import activity

from activities import registry
from engine.contracts.lane import LaneActivities, LaneOutcome, LaneRequest
from tests.tidy.house import ROOT, classes_with, dotted, read, room, sources
from workflows.registry import find_workflows

pytestmark = pytest.mark.unit


class Lanes(LaneActivities):
    @activity.defn
    async def open_lane(self, lane: LaneRequest) -> LaneOutcome:
        return LaneOutcome(outcomes=[])

    async def help_out(self) -> None:
        """No contract names it."""


def test_every_workflow_is_registered() -> None:
    written = [name for one in room("workflows") for name in classes_with(one, "workflow.defn")]
    assert sorted(each.__name__ for each in find_workflows()) == sorted(written)


def test_an_object_is_registered_with_what_its_contract_declares() -> None:
    lanes = Lanes()
    assert registry.activities_of(lanes) == [lanes.open_lane]
    assert registry.activities_of(object()) == []


def test_every_class_of_activities_is_made_for_a_queue() -> None:
    contracts = {
        node.name
        for one in room("engine/contracts")
        for node in ast.walk(one.tree)
        if isinstance(node, ast.ClassDef) and "ABC" in map(dotted, node.bases)
    }
    classes = {
        node.name
        for one in sources("activities")
        for node in ast.walk(one.tree)
        if isinstance(node, ast.ClassDef) and contracts.intersection(map(dotted, node.bases))
    }
    registries = [read(ROOT / place) for place in ("activities/registry.py", "activities/chain/registry.py")]
    calls = [node for one in registries for node in ast.walk(one.tree) if isinstance(node, ast.Call)]
    assert classes - {dotted(call.func).rpartition(".")[2] for call in calls} == set()
    assert len(classes) == len(contracts)
