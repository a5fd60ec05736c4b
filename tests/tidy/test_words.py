"""What does not stand in the product, what every module begins with, and what no test does."""

import ast
import re

import pytest

from tests.tidy.house import ROOMS, ROOT, Source, dotted, imports, product, source, sources

pytestmark = pytest.mark.tidy

LATER = re.compile(r"\b(TODO|FIXME|XXX)\b")
TEXTS = (".py", ".sql", ".sh", ".yaml", ".yml", ".toml", ".go", ".ini", ".mako", ".md")
SUBJECTLESS = re.compile(r"test_(it|of|those|what|whatever|where|who|whoever|whose)_")
MACHINE = re.compile(r"(^|[\s\"'=:(])/(work|opt/venv|root|home)/")


def left_for_later(path: str, text: str) -> list[str]:
    lines = enumerate(text.splitlines(), start=1)
    return [f"{path}:{number} {match[0]}" for number, line in lines if (match := LATER.search(line))]


def machine_paths(path: str, text: str) -> list[str]:
    lines = enumerate(text.splitlines(), start=1)
    return [f"{path}:{number} names a folder of one machine" for number, line in lines if MACHINE.search(line)]


def sleepers(files: list[Source]) -> list[str]:
    """A blocking sleep stops an event loop or hides that one does not know what one waits for."""
    found = []
    for one in files:
        attributes = [node for node in ast.walk(one.tree) if isinstance(node, ast.Attribute)]
        found += [f"{one.at(node)} time.sleep" for node in attributes if dotted(node) == "time.sleep"]
        found += [f"{one.at(node)} time.sleep" for node, module in imports(one) if module == "time.sleep"]
    return found


def undocumented(files: list[Source]) -> list[str]:
    """Only an empty file, such as a room's __init__, has no idea to tell."""
    return [f"{one.path} does not begin with its idea" for one in files if one.tree.body and not _idea(one)]


def _idea(one: Source) -> bool:
    return bool((ast.get_docstring(one.tree) or "").strip())


def subjectless(files: list[Source]) -> list[str]:
    """The name of a test is a sentence that says of whom or what it is."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [(one, node) for one in files for node in ast.walk(one.tree) if isinstance(node, functions)]
    return [f"{one.at(node)} {node.name} has no subject" for one, node in nodes if SUBJECTLESS.match(node.name)]


def texts() -> list[tuple[str, str]]:
    """Every text of the product that people write: code, SQL, configuration."""
    folders = [path for room in ROOMS for path in (ROOT / room).rglob("*")]
    tops = [path for path in ROOT.iterdir() if path.is_file() and not path.name.endswith((".lock", "CHANGELOG.md"))]
    ours = [path for path in [*folders, *tops] if path.suffix in TEXTS or path.name in ("run", "Dockerfile")]
    ours = [path for path in ours if "lndrpc" not in path.parts]
    return [(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in sorted(ours)]


def test_nothing_is_left_for_later() -> None:
    assert [each for path, text in texts() for each in left_for_later(path, text)] == []


def test_no_folder_of_one_machine_is_named() -> None:
    assert [each for path, text in texts() for each in machine_paths(path, text)] == []


def test_nothing_sleeps_on_a_thread() -> None:
    assert sleepers([one for one in product() if not one.path.startswith("infra/local/")]) == []


def test_every_module_begins_with_its_idea() -> None:
    assert undocumented(product()) == []


def test_every_test_is_named_with_a_subject() -> None:
    assert subjectless(sources("tests")) == []


@pytest.mark.parametrize("text", ["# TODO: later", "-- FIXME", "x = 1  # XXX"])
def test_a_note_for_later_is_seen(text: str) -> None:
    assert left_for_later("api/a.py", f"\n{text}\n") == [f"api/a.py:2 {LATER.findall(text)[0]}"]


@pytest.mark.parametrize("text", ["cd /home/me/x", 'p = "/work/main"', "DIR=/root/x"])
def test_a_folder_of_one_machine_is_seen(text: str) -> None:
    assert len(machine_paths("run", text)) == 1
    assert machine_paths("run", "WORKDIR /app\ncd $HOME/work/x\n") == []


@pytest.mark.parametrize("text", ["import time\ntime.sleep(1)", "from time import sleep"])
def test_a_blocking_sleep_is_seen(text: str) -> None:
    assert len(sleepers([source("api/a.py", text)])) == 1
    assert sleepers([source("api/a.py", "import asyncio\nawait asyncio.sleep(1)")]) == []


def test_a_module_without_an_idea_is_seen() -> None:
    assert undocumented([source("api/a.py", "x = 1")]) == ["api/a.py does not begin with its idea"]
    assert undocumented([source("api/__init__.py", ""), source("api/b.py", '"""Idea."""\n')]) == []


@pytest.mark.parametrize("name", ["what_is_paid_is_paid", "it_is_paid", "of_two_one_is_paid", "who_pays_is_told"])
def test_a_name_without_a_subject_is_seen(name: str) -> None:
    (seen,) = subjectless([source("tests/a.py", f"def test_{name}(): ...")])
    assert seen == f"tests/a.py:1 test_{name} has no subject"
    assert subjectless([source("tests/a.py", "async def test_a_payer_is_told(): ...\ndef what_is_it(): ...")]) == []
