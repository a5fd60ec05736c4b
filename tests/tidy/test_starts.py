"""One call starts workflows, one starts children, and one builds search attributes: all others go through them."""

import ast

import pytest

from tests.tidy.house import Source, product, source

pytestmark = pytest.mark.tidy

ONLY_IN = {
    "start_workflow": ("engine/contracts/workflow_start.py",),
    "execute_workflow": (),
    "start_update_with_start_workflow": (),
    "execute_update_with_start_workflow": ("engine/contracts/workflow_start.py",),
    "ScheduleActionStartWorkflow": ("activities/bootstrap.py",),
    "start_child_workflow": ("workflows/children.py",),
    "execute_child_workflow": (),
    "TypedSearchAttributes": ("engine/contracts/search_attributes.py",),
    "execute_update": ("api/service/temporal.py",),
    "start_update": (),
}


def by_hand(files: list[Source]) -> list[str]:
    """The bench is left out: it measures starts that are not Millrace's."""
    return [
        f"{one.at(node)} calls {name}: use {' or '.join(ONLY_IN[name]) or 'api/service/temporal.py'}"
        for one in files
        if not one.path.startswith("infra/bench/")
        for node in ast.walk(one.tree)
        if isinstance(node, ast.Call) and (name := _called(node.func)) in ONLY_IN and one.path not in ONLY_IN[name]
    ]


def _called(func: ast.expr) -> str:
    """A method of the SDK, or a class of it. A bare `start_workflow(…)` is our own function."""
    if isinstance(func, ast.Attribute):
        return func.attr
    return func.id if isinstance(func, ast.Name) and func.id[0].isupper() else ""


def test_nobody_starts_a_workflow_by_hand() -> None:
    assert by_hand(product()) == []


@pytest.mark.parametrize(
    "text",
    [
        "client.start_workflow('PaymentWorkflow', asked, id=name)",
        "resources.temporal.execute_workflow(QuoteWorkflow.run, asked)",
        "workflow.start_child_workflow(CaseWorkflow.run, case)",
        "TypedSearchAttributes([])",
        "handle.execute_update(CaseWorkflow.resolve, word)",
    ],
)
def test_a_start_by_hand_is_seen(text: str) -> None:
    assert len(by_hand([source("activities/refund.py", text)])) == 1
    assert by_hand([source("activities/refund.py", "start_workflow(client, refund_start(asked))")]) == []
