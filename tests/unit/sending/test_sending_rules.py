"""When an attempt is proven lost: never a block too early, never on one look."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.lost_attempt import MARGIN_BLOCKS, SIGHTINGS, is_proven_lost, release_height

pytestmark = pytest.mark.unit

TIME_LOCK = 1_000


def test_three_looks_past_the_time_lock_of_which_the_last_is_past_the_margin_are_enough() -> None:
    assert is_proven_lost([1_001, 1_005, release_height(TIME_LOCK)], TIME_LOCK)


@pytest.mark.parametrize(
    "heights",
    [
        [],
        [1_001, 1_002, 1_003],
        [998, 999, 1_000, 1_012],
        [1_001, 1_012],
        [1_012, 1_012, 1_012],
        [1_000, 1_001, 1_012],
    ],
    ids=["none", "before the margin", "one past it", "two", "the same height", "one at the time lock itself"],
)
def test_less_is_not_enough(heights: list[int]) -> None:
    assert not is_proven_lost(heights, TIME_LOCK)


@given(st.lists(st.integers(1, 2_000)), st.integers(1, 2_000))
def test_a_later_attempt_only_ever_takes_proof_away(heights: list[int], later: int) -> None:
    if is_proven_lost(heights, TIME_LOCK + later):
        assert is_proven_lost(heights, TIME_LOCK)
        assert max(heights) >= TIME_LOCK + later + MARGIN_BLOCKS
        assert len({height for height in heights if height > TIME_LOCK + later}) >= SIGHTINGS
