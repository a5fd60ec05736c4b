"""Workers run workflow code without Temporal's sandbox (decision 19), so every workflow is run inside it by a test."""

import ast
from pathlib import Path

import pytest

from tests.tidy.house import ROOT, Source, dotted, room, source

pytestmark = pytest.mark.tidy

RUN_INSIDE = ("tests/workflow", "tests/replay", "tests/helpers")
"""Helpers run workflows for the tests of the first two."""
RUNNERS = ("Worker", "Replayer")


def files_inside() -> list[Source]:
    files = [path for folder in RUN_INSIDE for path in sorted((ROOT / folder).rglob("*.py"))]
    return [source(path.relative_to(ROOT).as_posix(), _read(path)) for path in files]


def outside_the_sandbox(files: list[Source]) -> list[str]:
    """The SDK's default is the sandbox; whoever chooses a runner chooses another."""
    return [
        f"{one.at(node)} chooses a workflow runner"
        for one in files
        for node in ast.walk(one.tree)
        if isinstance(node, ast.Call) and any(each.arg == "workflow_runner" for each in node.keywords)
    ]


def never_run(workflows: list[Source], files: list[Source]) -> list[str]:
    run = {
        name.id
        for one in files
        for call in ast.walk(one.tree)
        if isinstance(call, ast.Call) and dotted(call.func) in RUNNERS
        for given in call.keywords
        if given.arg == "workflows"
        for name in ast.walk(given.value)
        if isinstance(name, ast.Name)
    }
    return [
        f"{one.at(node)} {node.name} is run by no test of {' or '.join(RUN_INSIDE)}"
        for one in workflows
        for node in ast.walk(one.tree)
        if isinstance(node, ast.ClassDef) and _is_workflow(node) and node.name not in run
    ]


def _is_workflow(node: ast.ClassDef) -> bool:
    return any(dotted(each) == "workflow.defn" for each in node.decorator_list)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_files_inside_stay_inside() -> None:
    assert outside_the_sandbox(files_inside()) == []


def test_every_workflow_is_run_inside() -> None:
    assert never_run(room("workflows"), files_inside()) == []


def test_the_rules_refuse_what_they_are_for() -> None:
    test = source("tests/workflow/test_x.py", "Worker(client, workflows=[One], workflow_runner=Unsandboxed())")
    workflows = source(
        "workflows/x.py", "@workflow.defn\nclass One: ...\n@workflow.defn(name='two')\nclass Two: ...\nclass Three: ..."
    )
    assert outside_the_sandbox([test]) == ["tests/workflow/test_x.py:1 chooses a workflow runner"]
    assert [problem.split()[1] for problem in never_run([workflows], [test])] == ["Two"]
