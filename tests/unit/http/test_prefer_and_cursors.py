"""Prefer headers and cursors: wishes that are granted within bounds, and places in a list that cannot be made up."""

from datetime import UTC, datetime
from operator import itemgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.codes import CODES, refused
from api.http.errors import problems
from api.http.paging import Paging, next_cursor, position
from api.http.prefer import wait_s
from engine.domain.errors import Invalid, NotFound, Refused, Unavailable
from engine.domain.page import cut

pytestmark = pytest.mark.unit

ROWS = [{"created_at": datetime(2026, 1, 1, tzinfo=UTC), "id": f"pay_{number}"} for number in range(4)]
PLACE = itemgetter("created_at", "id")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], 10),
        (["wait=0"], 0),
        (["wait=5"], 5),
        (["wait=60"], 60),
        (["wait=61"], 60),
        (["wait=" + "9" * 5000], 60),
        (["wait=0005"], 5),
        (["respond-async, WAIT = 7 ; x=y"], 7),
        (['wait="8"'], 8),
        (["respond-async", "wait=9"], 9),
        (["wait=3, wait=4"], 3),
        (["wait=-1"], 10),
        (["wait=1.5"], 10),
        (["wait"], 10),
        (["wait=٣"], 10),
        (["waiting=3"], 10),
    ],
)
def test_a_wish_to_wait_is_granted_within_a_minute(headers: list[str], seconds: int) -> None:
    assert wait_s(headers) == seconds


@given(st.lists(st.text(max_size=40), max_size=3))
def test_any_prefer_header_is_a_wish(headers: list[str]) -> None:
    assert 0 <= wait_s(headers) <= 60


def test_a_cursor_leads_to_the_next_page_of_its_own_list_only() -> None:
    page = cut(ROWS[:3], 2, PLACE)
    assert page.rows == ROWS[:2]
    cursor = next_cursor(page.following, "payments acct_1")
    assert position(Paging(after=cursor), "payments acct_1") == (ROWS[1]["created_at"], "pay_1")
    with pytest.raises(Invalid):
        position(Paging(after=cursor), "payments acct_2")
    assert next_cursor(cut(ROWS[:2], 2, PLACE).following, "x") is None
    assert position(Paging(), "x") == (None, None)


@given(st.text(max_size=80) | st.from_regex(r"[A-Za-z0-9_-]{8,80}={0,2}", fullmatch=True))
def test_a_made_up_cursor_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        position(Paging(after=text), "payments acct_1")


def test_a_recorded_refusal_becomes_the_error_that_it_was() -> None:
    for code, kind in (
        ("insufficient_funds", Refused),
        ("invoice_expired", Invalid),
        ("not_found", NotFound),
        ("node_unavailable", Unavailable),
        ("a_rule_of_tomorrow", Refused),
    ):
        error = refused(code, "no", {"available_msat": 1})
        assert (type(error), error.code, error.fields) == (kind, code, {"available_msat": 1})


def test_every_code_can_be_documented() -> None:
    responses = problems(*CODES)
    assert set(responses) == {status for status, _ in CODES.values()}
