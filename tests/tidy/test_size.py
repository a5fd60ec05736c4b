"""A file is read in one sitting and a function fits on one screen."""

import ast

import pytest

from tests.tidy.house import Source, product, source, sources

pytestmark = pytest.mark.tidy

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70


def long_files(files: list[Source]) -> list[str]:
    counts = [(one.path, len(one.text.splitlines())) for one in files]
    return [f"{path} has {count} lines: at most {MAX_FILE_LINES}" for path, count in counts if count > MAX_FILE_LINES]


def long_functions(files: list[Source]) -> list[str]:
    found = []
    for one in files:
        for node in ast.walk(one.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count > MAX_FUNCTION_LINES:
                    found.append(f"{one.at(node)} {node.name} has {count} lines: at most {MAX_FUNCTION_LINES}")
    return found


def test_files_are_short() -> None:
    assert long_files([*product(), *sources("tests")]) == []


def test_functions_fit_on_one_screen() -> None:
    assert long_functions([*product(), *sources("tests")]) == []


def test_a_long_file_is_seen() -> None:
    assert long_files([source("a.py", "x = 1\n" * 400)]) == []
    assert long_files([source("a.py", "x = 1\n" * 401)]) == ["a.py has 401 lines: at most 400"]


@pytest.mark.parametrize("head", ["def f():\n", "async def f():\n", "class A:\n  def f(self):\n"])
def test_a_long_function_is_seen(head: str) -> None:
    assert long_functions([source("a.py", head + "    x = 1\n" * 69)]) == []
    assert len(long_functions([source("a.py", head + "    x = 1\n" * 70)])) == 1
