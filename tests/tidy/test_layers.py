"""What stands on which storey: no HTTP in the service, no SQL outside its rooms, and no method that only passes on."""

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest

from tests.tidy import ratchets
from tests.tidy.house import Source, imports, loosened, product, source, sources, within

pytestmark = pytest.mark.tidy

WEB = ("fastapi", "starlette")
ROOMS_OF_SQL = ("engine.ledger", "engine.bank", "engine.views", "infra")
STATEMENT = re.compile(
    r"\s*(SELECT\s|INSERT\s+INTO\s|UPDATE\s+[\w.]+\s+(\w+\s+)?SET\s|DELETE\s+FROM\s|WITH\s+(RECURSIVE\s+)?\w+\s+AS\s|LOCK\s+TABLE\s)"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def web_imports(files: list[Source], ratchet: Mapping[str, int]) -> list[str]:
    """The service can be called from any door, so it knows no web framework."""
    found = {(one.path, node) for one in files for node, module in imports(one) if within(module, WEB)}
    return loosened(Counter(path for path, _ in found), ratchet, "imports of a web framework")


def stray_statements(files: list[Source], ratchet: Mapping[str, int]) -> list[str]:
    """SQL stands beside the tables that it reads: in the books, in the bank's rows and in their views."""
    outside = [one for one in files if not within(one.path.removesuffix(".py").replace("/", "."), ROOMS_OF_SQL)]
    counts = {one.path: sum(STATEMENT.match(text) is not None for text in _texts(one)) for one in outside}
    return loosened({path: count for path, count in counts.items() if count}, ratchet, "statements of SQL")


def _texts(one: Source) -> Iterator[str]:
    """Strings; of an f-string its beginning; docstrings aside."""
    nodes = list(ast.walk(one.tree))
    prose = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            prose.update(id(part) for part in node.values[1:])
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


def pass_throughs(files: list[Source]) -> list[str]:
    """A function that only hands its own arguments on to another: its callers can call that one themselves.

    A decorator, a call without arguments (`close`) and the making of an object are something of their own.
    """
    functions = [(one, node) for one in files for node in ast.walk(one.tree) if isinstance(node, Function)]
    return [
        f"{one.at(node)} {node.name} only calls {callee}" for one, node in functions if (callee := _passes_on_to(node))
    ]


def _passes_on_to(function: Function) -> str | None:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    if function.decorator_list or len(body) != 1 or not isinstance(body[0], (ast.Return, ast.Expr)):
        return None
    call = body[0].value.value if isinstance(body[0].value, ast.Await) else body[0].value
    if not isinstance(call, ast.Call):
        return None
    callee = ast.unparse(call.func)
    makes = callee.rsplit(".", 1)[-1].lstrip("_")[:1].isupper()
    if makes or "(" in callee or not _arguments(function) or _arguments(function) != _handed_on(call):
        return None
    return callee


def _arguments(function: Function) -> set[str]:
    every = function.args
    names = {each.arg for each in (*every.posonlyargs, *every.args, *every.kwonlyargs)} - {"self", "cls"}
    return names | {f"*{each.arg}" for each in (every.vararg, every.kwarg) if each is not None}


def _handed_on(call: ast.Call) -> set[str] | None:
    """The names that a call hands on as they are; None as soon as it hands on anything else."""
    names: set[str] = set()
    for given, keyword in [*((each, "") for each in call.args), *((each.value, each.arg) for each in call.keywords)]:
        star = isinstance(given, ast.Starred) or keyword is None
        name = given.value if isinstance(given, ast.Starred) else given
        if not isinstance(name, ast.Name) or keyword not in (None, "", name.id):
            return None
        names.add(f"*{name.id}" if star else name.id)
    return names


def test_the_service_imports_no_web_framework() -> None:
    assert web_imports(sources("api/service"), ratchets.WEB_IN_SERVICE) == []


def test_sql_stands_in_its_rooms() -> None:
    assert stray_statements(product(), ratchets.SQL_OUTSIDE) == []


def test_no_function_only_passes_on() -> None:
    assert pass_throughs(product()) == []


@pytest.mark.parametrize(
    "text", ["import fastapi", "from starlette.requests import Request", "def f():\n    from fastapi import Response"]
)
def test_a_web_framework_in_the_service_is_seen(text: str) -> None:
    one = source("api/service/pay.py", text)
    assert web_imports([one], {}) == ["api/service/pay.py has 1 imports of a web framework and is not on the list"]
    assert web_imports([one], {"api/service/pay.py": 1}) == []
    assert web_imports([source("api/service/pay.py", "import fastapiary\nimport api.http.body")], {}) == []


@pytest.mark.parametrize(
    "text",
    [
        'Q = "SELECT id FROM bank.payments"',
        'Q = """\n  INSERT INTO bank.payments(id) VALUES ($1)"""',
        'async def f(c): await c.execute("UPDATE bank.payments p SET status = $1")',
        'Q = f"WITH seen AS (SELECT {x}) SELECT 1"',
        'Q = "DELETE FROM bank.payments"',
    ],
)
def test_a_statement_of_sql_outside_its_rooms_is_seen(text: str) -> None:
    assert stray_statements([source("api/user/pay.py", text)], {}) == [
        "api/user/pay.py has 1 statements of SQL and is not on the list"
    ]
    assert stray_statements([source("api/user/pay.py", text)], {"api/user/pay.py": 1}) == []
    assert stray_statements([source("engine/bank/pay.py", text)], {}) == []


@pytest.mark.parametrize(
    "text", ['"""SELECT one."""', 'x = "Select a wallet"', 'x = "WITH love"', 'x = f"a{y}SELECT 1"']
)
def test_prose_is_no_sql(text: str) -> None:
    assert stray_statements([source("api/user/pay.py", text)], {}) == []


@pytest.mark.parametrize(
    "text",
    [
        "def f(a, b): return g(a, b)",
        "async def f(a, *, b): await g(a, b=b)",
        'class A:\n  async def f(self, a):\n    """As there."""\n    return await self._b.f(a)',
        "def f(*a, **b): return g(*a, **b)",
    ],
)
def test_a_function_that_only_passes_on_is_seen(text: str) -> None:
    assert len(pass_throughs([source("api/a.py", text)])) == 1


@pytest.mark.parametrize(
    "text",
    [
        "def f(a): return g(a, 1)",
        "def f(a): return g(b=a)",
        "def f(a): return a",
        "def f(a):\n  x = g(a)\n  return x",
        "@cache\ndef f(a): return g(a)",
        "def f(a): return Thing(a)",
        "def f(a): return _Thing(a)",
        "def f(a): return g().h(a)",
        "class A:\n  async def close(self): await self._b.close()",
    ],
)
def test_a_function_with_something_of_its_own_passes(text: str) -> None:
    assert pass_throughs([source("api/a.py", text)]) == []
