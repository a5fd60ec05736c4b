"""Reading `${…}` as compose does."""

import pytest

from tests.tidy.rendering import Missing, interpolate, render

pytestmark = pytest.mark.tidy

ENVIRON = {"A": "a", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("no place", "no place"),
        ("${A}b", "ab"),
        ("${NONE}b", "b"),
        ("$${A}", "${A}"),
        ("${A:-b}", "a"),
        ("${EMPTY:-b}", "b"),
        ("${EMPTY-b}", ""),
        ("${NONE:-}", ""),
        ("${NONE:-x:-y}", "x:-y"),
        ("${NONE:-${EMPTY:-${A}}}/24", "a/24"),
        ("${EMPTY?say}", ""),
        ("${A:+b}${NONE:+c}${EMPTY+d}", "bd"),
    ],
)
def test_a_place_means_what_compose_says(text: str, meaning: str) -> None:
    assert interpolate(text, ENVIRON) == meaning


@pytest.mark.parametrize("text", ["${NONE:?set it}", "${EMPTY:?set it}", "${NONE?}", "${NONE:-${EMPTY:?}}"])
def test_a_setting_that_must_be_set_is_missed(text: str) -> None:
    with pytest.raises(Missing):
        interpolate(text, ENVIRON)


def test_every_string_of_a_document_is_read() -> None:
    assert render({"x": ["${A}", 1, None], "y": {"z": "${NONE:-n}"}}, ENVIRON) == {"x": ["a", 1, None], "y": {"z": "n"}}
