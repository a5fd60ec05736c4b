"""docker-compose.yml as compose reads it: what `${…}` means, by the rules of the compose specification.

    $$             a dollar                         ${A}           the value, or nothing
    ${A:-word}     word, if A is unset or empty     ${A-word}      word, if A is unset
    ${A:?words}    an error, the same way           ${A?words}     an error, the same way
    ${A:+word}     word, if A is set and not empty  ${A+word}      word, if A is set

A word may hold further such places.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests.tidy.house import ROOT

COMPOSE = ROOT / "docker-compose.yml"
_PLACE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<colon>:?)(?P<how>[-?+])(?P<word>.*))?", re.DOTALL)


class Missing(Exception):
    """Compose would stop here, and name it."""


def services() -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return loaded


def render(node: Any, environ: Mapping[str, str]) -> Any:
    """Every string of a document with its places filled in. Raises Missing."""
    if isinstance(node, dict):
        return {key: render(value, environ) for key, value in node.items()}
    if isinstance(node, list):
        return [render(value, environ) for value in node]
    return interpolate(node, environ) if isinstance(node, str) else node


def interpolate(text: str, environ: Mapping[str, str]) -> str:
    """One string. Raises Missing."""
    found, rest = "", text
    while "$" in rest:
        before, _, rest = rest.partition("$")
        found += before
        if rest.startswith("$"):
            found, rest = f"{found}$", rest[1:]
        elif rest.startswith("{"):
            inside, rest = _inside(rest[1:])
            found += _place(inside, environ)
        else:
            raise ValueError(f"a lone dollar in {text!r}")
    return found + rest


def _inside(text: str) -> tuple[str, str]:
    """What stands before the bracket that closes this place, and what stands behind it."""
    depth = 1
    for at, letter in enumerate(text):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if depth == 0:
            return text[:at], text[at + 1 :]
    raise ValueError(f"no end of a place in {text!r}")


def _place(inside: str, environ: Mapping[str, str]) -> str:
    match = _PLACE.fullmatch(inside)
    if match is None:
        raise ValueError(f"no place: {inside!r}")
    value = environ.get(match["name"])
    is_there = value is not None and (value != "" or not match["colon"])
    if match["how"] == "+":
        return interpolate(match["word"], environ) if is_there else ""
    if is_there or match["how"] is None:
        return value or ""
    if match["how"] == "?":
        raise Missing(match["name"])
    return interpolate(match["word"], environ)
