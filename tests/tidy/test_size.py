"""A file is read in one sitting, a function fits on one screen, a folder on one page, and a module joins few others."""

import ast
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.tidy import ratchets
from tests.tidy.house import Source, loosened, product, source, sources

pytestmark = pytest.mark.tidy

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70
MAX_FOLDER_MODULES = 25
MAX_IMPORTS = 15


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


def full_folders(files: list[Source]) -> list[str]:
    """A folder's `__init__.py` holds nothing and does not count."""
    counts = Counter(str(Path(one.path).parent) for one in files if one.name != "__init__")
    return [
        f"{folder} has {count} modules: at most {MAX_FOLDER_MODULES}"
        for folder, count in counts.items()
        if count > MAX_FOLDER_MODULES
    ]


def many_imports(files: list[Source], ratchet: Mapping[str, int]) -> list[str]:
    """Import statements anywhere in a module, of whatever origin."""
    counts = {
        one.path: sum(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.walk(one.tree)) for one in files
    }
    return loosened({path: count for path, count in counts.items() if count > MAX_IMPORTS}, ratchet, "imports")


def test_files_are_short() -> None:
    assert long_files([*product(), *sources("tests")]) == []


def test_functions_fit_on_one_screen() -> None:
    assert long_functions([*product(), *sources("tests")]) == []


def test_folders_hold_few_modules() -> None:
    """Alembic finds all migrations in one folder."""
    files = [*product(), *sources("tests")]
    assert full_folders([one for one in files if not one.path.startswith("infra/migrations/versions/")]) == []


def test_modules_import_few_others() -> None:
    assert many_imports(product(), ratchets.IMPORTS) == []


def test_a_long_file_is_seen() -> None:
    assert long_files([source("a.py", "x = 1\n" * 400)]) == []
    assert long_files([source("a.py", "x = 1\n" * 401)]) == ["a.py has 401 lines: at most 400"]


@pytest.mark.parametrize("head", ["def f():\n", "async def f():\n", "class A:\n  def f(self):\n"])
def test_a_long_function_is_seen(head: str) -> None:
    assert long_functions([source("a.py", head + "    x = 1\n" * 69)]) == []
    assert len(long_functions([source("a.py", head + "    x = 1\n" * 70)])) == 1


@pytest.mark.parametrize("folder", ["engine/bank", "tests/unit/fee", "tests/helpers"])
def test_a_full_folder_is_seen(folder: str) -> None:
    modules = [source(f"{folder}/a{number}.py", "") for number in range(25)]
    init, below = source(f"{folder}/__init__.py", ""), source(f"{folder}/more/a.py", "")
    assert full_folders([*modules, init, below]) == []
    assert full_folders([*modules, source(f"{folder}/b.py", "")]) == [f"{folder} has 26 modules: at most 25"]


def test_a_module_with_many_imports_is_seen() -> None:
    few, many = [source("api/a.py", "import x\nfrom y import z, w\n" * (count // 2)) for count in (14, 16)]
    assert many_imports([few], {}) == []
    assert many_imports([many], {}) == ["api/a.py has 16 imports and is not on the list"]
    assert many_imports([many], {"api/a.py": 16}) == []


@pytest.mark.parametrize(
    ("count", "complaint"),
    [
        (17, "api/a.py has 17 imports: more than the 16 of the list"),
        (15, "api/a.py has 15 imports: set the 16 of the list to 15"),
        (0, "api/a.py needs no entry for imports any more: strike it"),
    ],
)
def test_a_ratchet_only_tightens(count: int, complaint: str) -> None:
    assert loosened({"api/a.py": count} if count else {}, {"api/a.py": 16}, "imports") == [complaint]
    assert loosened({"api/a.py": 16}, {"api/a.py": 16}, "imports") == []
