"""When a node's channels are in doubt: what is seen of them now, held against what was seen before."""

import pytest

from engine.domain.channel import KnownChannel, SeenChannels, find_doubts, gone

pytestmark = pytest.mark.unit

A, B = "aa:0", "bb:1"
KNOWN = {A: KnownChannel(updates=15), B: KnownChannel(updates=7)}


@pytest.mark.parametrize(
    "seen",
    [
        SeenChannels(updates={A: 15, B: 7}),
        SeenChannels(updates={A: 16, B: 90, "cc:0": 0}),
        SeenChannels(updates={A: 15}, closing={B}),
    ],
    ids=["as they were", "further, and one more", "one closes"],
)
def test_channels_that_only_went_on_are_in_no_doubt(seen: SeenChannels) -> None:
    assert gone(KNOWN, seen) == set()
    assert find_doubts(KNOWN, seen, {}) == {}


@pytest.mark.parametrize(
    ("known", "seen", "closed_by_peer", "why"),
    [
        (KNOWN, SeenChannels(updates={A: 14, B: 7}), {}, "at update 14, and was at 15 before"),
        (KNOWN, SeenChannels(updates={B: 7}), {}, "is gone, and was not closed"),
        (KNOWN, SeenChannels(updates={B: 7}), {A: True}, "was closed by its peer"),
        (KNOWN, SeenChannels(updates={B: 7}, closing={A}, data_lost={A}), {}, "has lost data"),
        ({A: KnownChannel(updates=15, is_closed=True)}, SeenChannels(updates={A: 15}), {}, "is open again"),
    ],
)
def test_a_channel_that_went_back_is_in_doubt(
    known: dict[str, KnownChannel], seen: SeenChannels, closed_by_peer: dict[str, bool], why: str
) -> None:
    (doubt,) = find_doubts(known, seen, closed_by_peer).items()
    assert doubt[0] == A
    assert why in doubt[1]


def test_a_channel_closed_by_agreement_or_by_us_is_asked_about_once_and_is_in_no_doubt() -> None:
    seen = SeenChannels(updates={B: 7})
    assert gone(KNOWN, seen) == {A}
    assert find_doubts(KNOWN, seen, {A: False}) == {}
    assert gone({**KNOWN, A: KnownChannel(updates=15, is_closed=True)}, seen) == set()
