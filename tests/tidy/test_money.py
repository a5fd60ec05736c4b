"""Money is whole numbers: no float comes near the domain or the books, not even on the way."""

import ast

import pytest

from tests.tidy.house import Source, product, source, sources

pytestmark = pytest.mark.tidy


def floats(files: list[Source]) -> list[str]:
    return [f"{one.at(node)} {why}" for one in files for node in ast.walk(one.tree) if (why := _why(node))]


def _why(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, float):
        return f"float literal {node.value}"
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, ast.Div):
        return "division by / makes a float: use // and say which way it rounds"
    if isinstance(node, ast.Name) and node.id == "float":
        return "float as a type or a call"
    return ""


def test_domain_and_ledger_know_no_float() -> None:
    assert floats(sources("engine/domain", "engine/ledger", "engine/bank", "engine/views")) == []


@pytest.mark.parametrize(
    "text",
    [
        "fee = 0.5",
        "fee = 1e3",
        "fee: float = 1",
        "def fee(amount: int) -> float | None: ...",
        "fee = float('1')",
        "fees: dict[str, float] = {}",
        "half = amount / 2",
        "amount /= 2",
    ],
)
def test_each_way_to_a_float_is_seen(text: str) -> None:
    assert len(floats([source("engine/ledger/a.py", text)])) == 1


def test_whole_numbers_pass() -> None:
    assert floats([source("engine/ledger/a.py", "half = amount // 2\nname = '0.5'\n")]) == []


def test_money_converts_in_one_place() -> None:
    """The factor between satoshi and millisatoshi stands in money.py alone."""
    assert factors(product()) == []


def factors(files: list[Source]) -> list[str]:
    found = []
    for one in files:
        if one.path == "engine/domain/money.py" or one.path.startswith("infra/"):
            continue
        for node in ast.walk(one.tree):
            if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.FloorDiv)):
                sides = (node.left, node.right)
                numbers = [side.value for side in sides if isinstance(side, ast.Constant)]
                names = [name.id for name in ast.walk(node) if isinstance(name, ast.Name)]
                if 1000 in numbers and any(name.endswith(("_sat", "_msat")) for name in names):
                    found.append(f"{one.at(node)} converts an amount: use engine.domain.money")
    return found


def test_a_conversion_elsewhere_is_seen() -> None:
    assert len(factors([source("api/a.py", "x = amount_sat * 1000\ny = 1_000 * fee_sat\nz = fee_msat // 1000\n")])) == 3
    assert factors([source("api/a.py", "timeout_ms = timeout_s * 1000")]) == []
