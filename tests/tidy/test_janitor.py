"""Every workflow that owns rows is looked after: a new one must say by whom."""

import pytest

from activities.janitor_kind import KINDS
from engine.contracts.janitor import LOOKED_AFTER, LOOKED_AFTER_ELSEWHERE
from tests.tidy.house import Source, classes_with, room, source

pytestmark = pytest.mark.tidy


def unlisted(workflows: list[Source]) -> set[str]:
    named = {name for one in workflows for name in classes_with(one, "workflow.defn")}
    return named ^ {*LOOKED_AFTER, *LOOKED_AFTER_ELSEWHERE}


def test_every_workflow_is_in_one_of_the_two_lists() -> None:
    assert unlisted(room("workflows")) == set()
    assert LOOKED_AFTER.keys() & LOOKED_AFTER_ELSEWHERE.keys() == set()


def test_every_kind_that_is_named_has_its_janitor_and_the_other_way_round() -> None:
    assert {kind for kinds in LOOKED_AFTER.values() for kind in kinds} == set(KINDS)


def test_a_new_workflow_is_seen() -> None:
    new = source("workflows/refund.py", "@workflow.defn\nclass RefundWorkflow: ...")
    assert unlisted([*room("workflows"), new]) == {"RefundWorkflow"}
