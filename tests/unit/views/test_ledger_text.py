"""The books as text: cells that are no formulas, account names that Beancount takes and that can be read back."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.views.beancount import LAYERS, ROOTS, account_code, account_name, commodity, quoted
from engine.views.csv import cell, csv_lines

pytestmark = [pytest.mark.unit, pytest.mark.property]

CODE = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9:_.@-]{0,40}", fullmatch=True)
NAME = re.compile(r"(Assets|Liabilities|Equity|Income|Expenses)(:[A-Z0-9][A-Za-z0-9-]*)+")


@given(kind=st.sampled_from(sorted(ROOTS)), layer=st.sampled_from(sorted(LAYERS)), code=CODE)
def test_every_code_has_a_legal_name_that_leads_back(kind: str, layer: str, code: str) -> None:
    name = account_name(kind, layer, code)
    assert NAME.fullmatch(name)
    assert account_code(name) == (kind, layer, code)


@pytest.mark.parametrize(
    ("kind", "code", "name"),
    [
        ("liability", "liab:user:wal_01k5", "Liabilities:Settled:Liab:User:Wal-u01k5"),
        ("asset", "asset:lnd:lnd-1:channels", "Assets:Settled:Asset:Lnd:Lnd--1:Channels"),
        ("expense", "exp:LN::a.b", "Expenses:Settled:Exp:X-xLN:X-x:A-db"),
    ],
)
def test_names_can_be_read(kind: str, code: str, name: str) -> None:
    assert account_name(kind, "settled", code) == name


def test_commodities_are_the_smallest_units() -> None:
    assert (commodity("BTC"), commodity("USD")) == ("MSAT", "MICRO-USD")


def test_a_string_stays_on_its_line_and_inside_its_quotes() -> None:
    assert quoted('a "b" \\ c\nd\u2028e') == '"a \\"b\\" \\\\ c d e"'


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "  =1", "＝1", "|x", "%x"])
def test_a_formula_becomes_words(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "lunch", "a=b", "1-1", "'=1"])
def test_words_stay_as_they_are(text: str) -> None:
    assert cell(text) == text


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=2)))
def test_csv_is_read_back_as_it_was(rows: list[list[str]]) -> None:
    text = csv_lines(rows)
    assert list(csv.reader(io.StringIO(text, newline=""))) == rows
    assert text == "" or text.endswith("\r\n")
