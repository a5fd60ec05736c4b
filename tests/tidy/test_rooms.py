"""One word, the same file name in every room: who opens four files of one name sees where the money is.

A workflow has its contract, its activities and its replay history; a contract with activities has them implemented;
a route that starts workflows is called like the workflow. `worker.py` joins the rooms and is checked here because
import-linter takes packages only.
"""

import ast
from pathlib import Path

import pytest

from tests.tidy.house import (
    GENERATED,
    ROOT,
    Source,
    decorated,
    dotted,
    imports,
    product,
    read,
    room,
    source,
    sources,
    within,
)

pytestmark = pytest.mark.tidy

HISTORIES = "tests/replay/histories"
STARTS = (
    "start_workflow",
    "execute_workflow",
    "start_update_with_start_workflow",
    "execute_update_with_start_workflow",
)


def workflow_names(workflows: list[Source]) -> list[str]:
    return [one.name for one in workflows if decorated(one, "workflow.defn")]


def incomplete_workflows(workflows: list[Source], files: set[str]) -> list[str]:
    """`files` are the paths that exist, so that a rule can be tried on a made-up house."""
    found = []
    for name in workflow_names(workflows):
        needed = (f"engine/contracts/{name}.py", f"activities/{name}.py")
        found += [f"workflows/{name}.py has no {path}" for path in needed if not _stands(path, files)]
        kept = [f"{HISTORIES}/{name}{rest}" for rest in (".json", "-", "/")]
        if not any(path.startswith(tuple(kept)) and path.endswith(".json") for path in files):
            found.append(f"workflows/{name}.py has no history {HISTORIES}/{name}-<story>.json")
    return found


def unimplemented_contracts(contracts: list[Source], activities: list[Source], files: set[str]) -> list[str]:
    implemented = {dotted(base).split(".")[-1] for one in activities for each in _classes(one) for base in each.bases}
    found = []
    for one in contracts:
        declared = [each for each in _classes(one) if _has_activities(each)]
        found += [f"{one.at(each)} {each.name} has no activities" for each in declared if each.name not in implemented]
        needed = [f"{folder}/{one.name}.py" for folder in ("activities", "workflows") if declared]
        found += [f"{path} is missing: its contract exists" for path in needed if not _stands(path, files)]
    return found


def _stands(path: str, files: set[str]) -> bool:
    """A capability that is too long for one file is a folder, with a file of the same name in it."""
    folder = Path(path).with_suffix("")
    return path in files or (folder / Path(path).name).as_posix() in files


def unannounced_activities(activities: list[Source]) -> list[str]:
    """A class with activities gets their names and types from a contract, by inheritance."""
    found = []
    for one in activities:
        announced = {module.rsplit(".", 1)[-1] for _, module in imports(one) if within(module, ["engine.contracts"])}
        for each in _classes(one):
            if _has_activities(each) and not announced.intersection(dotted(base) for base in each.bases):
                found.append(f"{one.at(each)} {each.name} implements no contract")
    return found


def _classes(one: Source) -> list[ast.ClassDef]:
    return [node for node in ast.walk(one.tree) if isinstance(node, ast.ClassDef)]


def _has_activities(one: ast.ClassDef) -> bool:
    methods = [node for node in one.body if isinstance(node, ast.AsyncFunctionDef)]
    return any(dotted(each) == "activity.defn" for method in methods for each in method.decorator_list)


def misnamed_routes(api: list[Source], workflows: list[Source]) -> list[str]:
    names = workflow_names(workflows)
    found = []
    for one in api:
        called = {node.func.attr for node in _calls(one) if isinstance(node.func, ast.Attribute)}
        if called.intersection(STARTS) and _has_routes(one) and one.name not in names:
            found.append(f"{one.path} starts a workflow and is called like none of {', '.join(names)}")
    return found


def _calls(one: Source) -> list[ast.Call]:
    return [node for node in ast.walk(one.tree) if isinstance(node, ast.Call)]


def _has_routes(one: Source) -> bool:
    return any(isinstance(node.func, ast.Name) and node.func.id == "APIRouter" for node in _calls(one))


def bad_worker_imports(worker: Source) -> list[str]:
    """The worker builds clients and activities and registers workflows; doors, tools, tests and stubs are not its."""
    closed = ("api", "infra", "tests", "fastapi", "uvicorn", GENERATED.replace("/", "."))
    return [f"{worker.at(node)} imports {module}" for node, module in imports(worker) if within(module, closed)]


def importers_of(files: list[Source], *modules: str) -> list[str]:
    return [f"{one.at(node)} imports {name}" for one in files for node, name in imports(one) if within(name, modules)]


def existing() -> set[str]:
    folders = ("api", "workflows", "activities", "engine", HISTORIES)
    return {path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).rglob("*.*")}


def test_every_workflow_has_its_contract_activities_and_history() -> None:
    assert incomplete_workflows(room("workflows"), existing()) == []


def test_every_contract_with_activities_has_its_rooms() -> None:
    assert unimplemented_contracts(room("engine/contracts"), sources("activities"), existing()) == []


def test_every_activity_has_its_contract() -> None:
    assert unannounced_activities(sources("activities")) == []


def test_routes_are_called_like_the_workflows_they_start() -> None:
    assert misnamed_routes(sources("api"), room("workflows")) == []


def test_the_worker_joins_workflows_activities_and_engine_only() -> None:
    assert bad_worker_imports(read(ROOT / "worker.py")) == []


def test_nothing_imports_the_worker_or_the_tests() -> None:
    assert importers_of(product(), "worker", "tests") == []
    assert importers_of(sources("api", "workflows", "activities", "engine"), "infra") == []


WORKFLOW = source("workflows/refund.py", "@workflow.defn\nclass RefundWorkflow: ...")
CONTRACT = source("engine/contracts/refund.py", "class A:\n  @activity.defn\n  async def refund(self): ...")
ACTIVITIES = source(
    "activities/refund.py",
    "from engine.contracts.refund import A\nclass B(A):\n  @activity.defn\n  async def refund(self): ...",
)
WHOLE = {"engine/contracts/refund.py", "activities/refund.py", "workflows/refund.py", f"{HISTORIES}/refund-ok.json"}


@pytest.mark.parametrize("missing", sorted(WHOLE - {"workflows/refund.py"}))
def test_a_missing_part_of_a_workflow_is_seen(missing: str) -> None:
    assert incomplete_workflows([WORKFLOW], WHOLE) == []
    (problem,) = incomplete_workflows([WORKFLOW], WHOLE - {missing})
    assert Path(missing).parent.as_posix() in problem


def test_a_history_of_a_longer_name_does_not_count() -> None:
    files = WHOLE - {f"{HISTORIES}/refund-ok.json"} | {f"{HISTORIES}/refund_batch.json"}
    assert len(incomplete_workflows([WORKFLOW], files)) == 1


def test_shared_files_need_no_partners() -> None:
    assert incomplete_workflows([source("workflows/policies.py", "LEDGER = {}")], set()) == []
    assert unimplemented_contracts([source("engine/contracts/names.py", "PAYMENTS = 'payments'")], [], set()) == []
    assert unannounced_activities([source("activities/failures.py", "def fail(): ...")]) == []


def test_a_contract_without_activities_or_workflow_is_seen() -> None:
    assert unimplemented_contracts([CONTRACT], [ACTIVITIES], WHOLE) == []
    assert len(unimplemented_contracts([CONTRACT], [ACTIVITIES], set())) == 2
    assert unimplemented_contracts([CONTRACT], [], WHOLE) == ["engine/contracts/refund.py:1 A has no activities"]


def test_an_activity_without_contract_is_seen() -> None:
    assert unannounced_activities([ACTIVITIES]) == []
    alone = source("activities/refund.py", "class B:\n  @activity.defn()\n  async def refund(self): ...")
    assert unannounced_activities([alone]) == ["activities/refund.py:1 B implements no contract"]


def test_a_route_with_a_name_of_its_own_is_seen() -> None:
    text = "router = APIRouter()\nasync def give_back(client): await client.start_workflow('x')"
    assert misnamed_routes([source("api/refund.py", text)], [WORKFLOW]) == []
    assert len(misnamed_routes([source("api/giveback.py", text)], [WORKFLOW])) == 1


@pytest.mark.parametrize("text", ["import api.app", "from infra import local", "from engine.clients import lndrpc"])
def test_a_wrong_import_of_the_worker_is_seen(text: str) -> None:
    assert bad_worker_imports(source("worker.py", text)) != []
    assert bad_worker_imports(source("worker.py", "from activities.payment import A\nimport engine.settings")) == []


def test_an_import_of_the_worker_is_seen() -> None:
    assert len(importers_of([source("api/a.py", "import worker")], "worker", "tests")) == 1
    assert importers_of([source("api/a.py", "import workers")], "worker", "tests") == []
