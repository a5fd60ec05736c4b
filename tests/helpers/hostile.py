"""What a stranger may send in place of a text, a number or an answer: whatever has ever broken a later step."""

import json

from hypothesis import strategies as st

NASTY = (
    *("\0", "a\0b", "\ud800", "\udfff", "\x01\x1b[31m", "\x7f\x85\x9f", "\u2028", "\u2029"),
    *("\u202etxt.exe", "\u2066a\u2069", "\u200e\u200f", "\ufeff", "\ufffe\uffff", "\U0010ffff", "\ue000"),
    *(
        "👩‍👩‍👧‍👦",
        "e\u0301" * 200,
        "ﷺ" * 300,
        "\r\n",
        "\t\n\v\f",
        "'",
        '"',
        "\\",
        "\\u0000",
        "%00",
        "{}",
        "=1+1",
        "@SUM",
    ),
    *("<script>", "{{7*7}}", "$1", "%s%n", "NULL", "\N{RIGHT-TO-LEFT OVERRIDE}" * 50, "x" * 20_000, "", " "),
)
"""Texts that some program on the way has choked on."""

NUMBERS = (
    *(0, -1, 1, 2**31, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63) - 1, 10**4000),
    *(0.0, -0.0, 0.5, 1000.0, 1e16, 1e300, -1e300, 5e-324, float("inf"), float("-inf"), float("nan")),
)
"""Numbers at and beyond the edge of every type that a number passes through."""

texts = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(), max_size=60),
    st.lists(st.sampled_from(NASTY[:-3]), max_size=4).map("".join),
)
"""Any text at all, surrogates included."""

numbers = st.one_of(st.sampled_from(NUMBERS), st.integers(), st.floats())
scalars = st.one_of(texts, numbers, st.booleans(), st.none())
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
"""Any JSON, and what some services write in its place."""


def body(value: object) -> bytes:
    """As a service would send it: surrogates escaped, and with constants that are not JSON."""
    return json.dumps(value).encode()
