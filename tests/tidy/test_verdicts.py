"""What the ledger says of a call is never thrown away: whether it was the first, or what was wrong.

A payment was once sent with nothing held for it because nobody looked at `fresh`. So a call that gives something is no
statement of its own, and a statement that changes rows of the bank says how many it expects.
"""

import ast
from collections.abc import Iterable, Iterator

import pytest

from tests.tidy.house import Source, dotted, product, source

pytestmark = pytest.mark.tidy

CHANGES = ("change_one", "change_rows", "change_any")


def functions(sources: Iterable[Source]) -> Iterator[ast.AsyncFunctionDef]:
    for one in sources:
        yield from (node for node in one.tree.body if isinstance(node, ast.AsyncFunctionDef))


def telling(sources: Iterable[Source]) -> set[str]:
    """The names of the ledger's functions that give something, wherever the name stands for one."""
    found = list(functions(sources))
    silent = {each.name for each in found if isinstance(each.returns, ast.Constant) and each.returns.value is None}
    return {each.name for each in found} - silent


def ignored(sources: list[Source]) -> list[str]:
    names = telling(each for each in sources if each.path.startswith(("engine/ledger/", "engine/bank/")))
    return [
        f"{one.at(node)}: what {dotted(node.value.value)} says is thrown away"
        for one in sources
        for node in ast.walk(one.tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Await)
        and dotted(node.value.value).rpartition(".")[2] in names
    ]


def uncounted(sources: list[Source]) -> list[str]:
    return [
        f"{one.at(node)}: an UPDATE goes through {', '.join(CHANGES)}"
        for one in sources
        if one.path.startswith(("api/", "activities/", "engine/"))
        for node in ast.walk(one.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "execute"
        and any("UPDATE bank." in text for text in _texts(node))
    ]


def _texts(call: ast.Call) -> list[str]:
    return [node.value for node in ast.walk(call) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_no_verdict_of_the_ledger_is_thrown_away() -> None:
    assert {"post_in_tx", "take_over_in_tx", "add_rows_in_tx", "claim_keys_in_tx"} <= telling(product())
    assert ignored(product()) == []


def test_every_update_says_how_many_rows_it_changes() -> None:
    assert uncounted(product()) == []


def test_the_rules_refuse_what_breaks_them() -> None:
    ledger = source("engine/ledger/x.py", "async def post(conn) -> bool: ...\nasync def note(conn) -> None: ...\n")
    caller = source("activities/x.py", "async def f(conn):\n    await x.post(conn)\n    await x.note(conn)\n")
    assert ignored([ledger, caller]) == ["activities/x.py:2: what x.post says is thrown away"]
    change = source("engine/ledger/y.py", 'async def f(conn):\n    await conn.execute("UPDATE bank.nodes SET a = 1")\n')
    assert len(uncounted([change])) == 1
