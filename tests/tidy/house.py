"""The house as the tidy tests see it: Python sources, parsed once, by room.

A rule is a function from sources to a list of sentences, one for each place that breaks it. Every rule is applied to
the house, where the list must be empty, and to a small bad example, where it must not.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("api", "workflows", "activities", "engine", "infra")
GENERATED = "engine/clients/lndrpc"


@dataclass(frozen=True)
class Source:
    """One Python file."""

    path: str
    """Relative to the root, with forward slashes."""
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        return Path(self.path).stem

    def at(self, node: ast.AST) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 1)}"


def source(path: str, text: str) -> Source:
    """A source made up for an example."""
    return Source(path, text, ast.parse(text, path))


@cache
def read(path: Path) -> Source:
    return source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))


def sources(*folders: str) -> list[Source]:
    """Every Python file of ours below these folders."""
    found = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return [read(path) for path in found if GENERATED not in path.as_posix()]


def product() -> list[Source]:
    """Everything that runs in production or starts it; tests aside."""
    worker = ROOT / "worker.py"
    return [*sources(*ROOMS), *([read(worker)] if worker.exists() else [])]


def room(folder: str) -> list[Source]:
    """The files that stand in one room itself; the empty __init__ aside."""
    return [each for each in sources(folder) if str(Path(each.path).parent) == folder and each.name != "__init__"]


def imports(one: Source) -> Iterator[tuple[ast.AST, str]]:
    """Every module that a file imports anywhere, `from a import b` giving both `a` and `a.b`."""
    for node in ast.walk(one.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node, node.module
            for alias in node.names:
                yield node, f"{node.module}.{alias.name}"


def within(module: str, packages: Iterable[str]) -> bool:
    """Is this module one of the packages or inside one?"""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def dotted(node: ast.expr) -> str:
    """`workflow.defn` for `@workflow.defn` and `@workflow.defn(name=…)`; empty for anything that is not a name."""
    if isinstance(node, ast.Call):
        return dotted(node.func)
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}".lstrip(".")
    return node.id if isinstance(node, ast.Name) else ""


def decorated(one: Source, decorator: str) -> bool:
    """Does the file define a class or a method with this decorator?"""
    definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(one.tree) if isinstance(node, definitions)]
    return any(dotted(each) == decorator for node in nodes for each in node.decorator_list)


def classes_with(one: Source, decorator: str) -> list[str]:
    """The names of the classes that the file decorates with it."""
    classes = [node for node in ast.walk(one.tree) if isinstance(node, ast.ClassDef)]
    return [node.name for node in classes if any(dotted(each) == decorator for each in node.decorator_list)]


def loosened(counts: Mapping[str, int], ratchet: Mapping[str, int], what: str) -> list[str]:
    """Where a ratchet does not fit the house: `counts` are the files that break a rule, with how often they do."""
    found = [
        f"{path} has {count} {what} and is not on the list" for path, count in counts.items() if path not in ratchet
    ]
    for path, most in ratchet.items():
        count = counts.get(path, 0)
        if count == 0:
            found.append(f"{path} needs no entry for {what} any more: strike it")
        elif count > most:
            found.append(f"{path} has {count} {what}: more than the {most} of the list")
        elif count < most:
            found.append(f"{path} has {count} {what}: set the {most} of the list to {count}")
    return found
