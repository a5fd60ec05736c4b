"""`Prefer: wait=N` (RFC 7240): how long to wait for a final answer. A wish, so a malformed one is ignored."""

import asyncio
from typing import Annotated

from fastapi import Header, Request

_DEFAULT_S, MAX_WAIT_S = 10, 60
MEANING = f"`wait=N`: wait up to N seconds (0 to {MAX_WAIT_S}, default {_DEFAULT_S}) for a final status."


class Deadline:
    """A moment in this event loop's time."""

    def __init__(self, wait_s: int) -> None:
        self.at = asyncio.get_running_loop().time() + wait_s

    @property
    def left_s(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self.at - asyncio.get_running_loop().time())


async def waiting(
    request: Request, _documented: Annotated[str | None, Header(alias="Prefer", description=MEANING)] = None
) -> Deadline:
    """Dependency: until when this request may wait."""
    return Deadline(wait_s(request.headers.getlist("Prefer")))


def wait_s(headers: list[str]) -> int:
    """The first `wait` of all Prefer headers, at most a minute; the default where there is none that can be read."""
    for preference in ",".join(headers).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            digits = value.strip().strip('"')
            return _read(digits) if digits.isascii() and digits.isdecimal() else _DEFAULT_S
    return _DEFAULT_S


def _read(digits: str) -> int:
    significant = digits.lstrip("0")
    return MAX_WAIT_S if len(significant) > len(str(MAX_WAIT_S)) else min(int(significant or "0"), MAX_WAIT_S)
