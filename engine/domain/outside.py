"""Text and JSON from outside, checked where they come in, so that they cannot break or mislead a later step.

Outside are LNURL services, forms without a key, and nodes, whose messages come from the network too.

    one_line, lines    text for people: made harmless and cut, never refused
    is_harmless        text that is used as it is (a link, a callback): the caller refuses it when it is not harmless
    read_json          an answer: strict JSON of one meaning, or ValueError

What is harmless: PostgreSQL stores it (no NUL, which neither `text` nor `jsonb` takes), UTF-8 writes it (no half of a
surrogate pair), a line stays a line and a terminal does nothing (no control characters but tab and newline, no other
line ends), and it reads in the order in which it is written (no overrides, embeddings or isolates of direction; the
marks that Arabic and Hebrew need stay).
"""

import json
import re
from typing import Any, cast

MAX_DEPTH = 32

_HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]+")
_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_DIRECTIONS = re.compile(r"[\u202a-\u202e\u2066-\u2069]")
_HALVES = re.compile(r"[\ud800-\udfff]")


def is_harmless(text: str) -> bool:
    """Whether it may be kept and shown as it is."""
    return _HARMFUL.search(text) is None


def one_line(text: str, max_bytes: int) -> str:
    """Text for people: one line, at most this many bytes of UTF-8, without space around it."""
    return _cut(_LINE.sub(" ", text), max_bytes)


def lines(text: str, max_bytes: int) -> str:
    """As `one_line`, with tabs and newlines as they are."""
    return _cut(_CONTROLS.sub(" ", text), max_bytes)


def read_json(body: bytes) -> Any:  # noqa: ANN401 - JSON
    """The value of a JSON text (RFC 8259) that has only one meaning.

    Raises ValueError for what is not UTF-8 or not JSON, for constants that JSON does not have (NaN), for a name that
    comes twice in one object, for halves of surrogate pairs, and for what is nested deeper than 32 levels. Numbers keep
    their size: whoever uses one says how large it may be.
    """
    try:
        found = json.loads(body.decode("utf-8"), object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if _is_deeper(found, MAX_DEPTH):
        raise ValueError("it is nested too deeply")
    json.dumps(found, ensure_ascii=False).encode("utf-8")  # raises for half of a pair
    return found


def _cut(text: str, max_bytes: int) -> str:
    whole = _HALVES.sub("\ufffd", _DIRECTIONS.sub("", text)).strip()
    return whole.encode()[:max_bytes].decode(errors="ignore").strip()


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice in one object")
    return found


def _no_constant(name: str) -> Any:  # noqa: ANN401 - never returns
    raise ValueError(f"{name} is not JSON")


def _is_deeper(found: object, depth: int) -> bool:
    """Counted level by level, without recursion."""
    level: list[object] = [found]
    for _ in range(depth + 1):
        level = [inner for outer in level for inner in _inside(outer)]
    return bool(level)


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(cast("dict[str, object]", value).values())
    return cast("list[object]", value) if isinstance(value, list) else []
