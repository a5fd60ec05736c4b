"""Every activity call says how it is retried, by the name of a policy from `workflows/policies.py`.

`call(Do.settle_payment, request, **LEDGER)` is right, whatever `call` was made from; further keywords may follow.
A call without a policy would be tried for ever in silence, or once.
"""

import ast
import re

import pytest

from tests.tidy.house import Source, dotted, room, source

pytestmark = pytest.mark.tidy

ACTIVITY_CALL = re.compile(r"(execute|start)_(local_)?activity(_class|_method)?$")
POLICIES = "workflows.policies"


def calls_without_policy(files: list[Source]) -> list[str]:
    return [problem for one in files for problem in _problems(one)]


def _problems(one: Source) -> list[str]:
    policies, aliases = _policies(one), _aliases(one)
    called: set[int] = set()
    found = []
    for node in ast.walk(one.tree):
        if isinstance(node, ast.Call) and _is_activity_call(node.func, aliases):
            called.add(id(node.func))
            if not any(each.arg is None and dotted(each.value) in policies for each in node.keywords):
                found.append(f"{one.at(node)} calls an activity without **POLICY from {POLICIES}")
    renamed = {id(node.value) for node in ast.walk(one.tree) if isinstance(node, ast.Assign)}
    for node in ast.walk(one.tree):
        named = isinstance(node, ast.Attribute) and ACTIVITY_CALL.match(node.attr)
        if named and id(node) not in called | renamed:
            found.append(f"{one.at(node)} hands an activity call on, out of sight of this rule")
    return found


def _is_activity_call(func: ast.expr, aliases: set[str]) -> bool:
    if isinstance(func, ast.Name):
        return func.id in aliases
    return isinstance(func, ast.Attribute) and bool(ACTIVITY_CALL.match(func.attr))


def _policies(one: Source) -> set[str]:
    """The names under which this file knows policies, and functions that make one."""
    names: set[str] = set()
    for node in ast.walk(one.tree):
        if isinstance(node, ast.ImportFrom) and node.module == POLICIES:
            names |= {alias.asname or alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module == "workflows":
            modules = [alias.asname or alias.name for alias in node.names if alias.name == "policies"]
            used = [each for each in ast.walk(one.tree) if isinstance(each, ast.Attribute)]
            names |= {dotted(each) for each in used if dotted(each.value) in modules}
    return names


def _aliases(one: Source) -> set[str]:
    """Other names that this file gives to the SDK's functions."""
    names: set[str] = set()
    for node in ast.walk(one.tree):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names if ACTIVITY_CALL.match(alias.name)}
        if isinstance(node, ast.Assign) and ACTIVITY_CALL.search(dotted(node.value)):
            names |= {dotted(target) for target in node.targets}
    return names


def test_every_activity_call_names_a_policy() -> None:
    assert calls_without_policy([one for one in room("workflows") if one.name != "policies"]) == []


IMPORT = "from workflows.policies import LEDGER, node\n"


@pytest.mark.parametrize(
    "text",
    [
        "workflow.execute_activity(Do.settle, request, **LEDGER)",
        "workflow.execute_local_activity_method(Do.settle, request, **LEDGER, summary='settle')",
        "call = workflow.execute_activity_method\ncall(Do.settle, request, **LEDGER)",
        "from temporalio.workflow import start_activity as call\ncall(Do.settle, request, **LEDGER)",
        "workflow.execute_activity(Do.settle, request, **node(name))",
        "from workflows import policies\nworkflow.execute_activity(Do.settle, request, **policies.LEDGER)",
    ],
)
def test_a_call_with_a_policy_passes(text: str) -> None:
    assert calls_without_policy([source("workflows/a.py", IMPORT + text)]) == []


@pytest.mark.parametrize(
    "text",
    [
        "workflow.execute_activity(Do.settle, request)",
        "workflow.execute_activity('settle', request, start_to_close_timeout=timedelta(seconds=5))",
        "workflow.start_local_activity_method(Do.settle, request, **kwargs)",
        "workflow.execute_activity_class(Do, request, **{'x': 1})",
        "LEDGER = {}\ncall = workflow.execute_activity_method\ncall(Do.settle, request)",
        "from temporalio.workflow import execute_activity as call\ncall(Do.settle, request)",
        "functools.partial(workflow.execute_activity, Do.settle)",
        "return_later(workflow.start_activity)",
    ],
)
def test_a_call_without_a_policy_is_seen(text: str) -> None:
    assert len(calls_without_policy([source("workflows/a.py", IMPORT + text)])) == 1


def test_a_policy_made_up_in_the_workflow_is_seen() -> None:
    text = "LEDGER = {}\nworkflow.execute_activity(Do.settle, request, **LEDGER)"
    assert len(calls_without_policy([source("workflows/a.py", text)])) == 1


LOCAL_CALL = re.compile(r"(execute|start)_local_activity(_class|_method)?$")


def local_calls(files: list[Source]) -> list[str]:
    """Mentions of local activities: one that is repeated without an end fills the history of its workflow."""
    return [
        f"{one.at(node)} calls a local activity: use workflows.patience.in_books"
        for one in files
        for node in ast.walk(one.tree)
        if (isinstance(node, ast.Attribute) and LOCAL_CALL.match(node.attr))
        or (isinstance(node, ast.ImportFrom) and any(LOCAL_CALL.match(alias.name) for alias in node.names))
    ]


def test_only_patience_calls_local_activities() -> None:
    assert local_calls([one for one in room("workflows") if one.name != "patience"]) == []
    assert len(local_calls([one for one in room("workflows") if one.name == "patience"])) == 1


@pytest.mark.parametrize(
    "text",
    [
        "workflow.execute_local_activity_method(Do.settle, request, **LEDGER)",
        "call = workflow.start_local_activity",
        "from temporalio.workflow import execute_local_activity as call",
    ],
)
def test_a_local_activity_elsewhere_is_seen(text: str) -> None:
    assert len(local_calls([source("workflows/a.py", text)])) == 1
