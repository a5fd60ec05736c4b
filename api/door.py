"""Before anything else is done for a request: one without a valid key is counted by client address (`strangers.py`).

    /healthz, /readyz        cheap, and asked by machines that need the truth: only made to wait for their turn
    /v1/…, with a key        passes if the key was valid a moment ago; else it is looked up, and counted if not valid.
                             While none can be looked up (503), it waits for its turn and is not counted
    everything else          counted, with a key or without: open paths, pages, paths that do not exist

That a key is valid is learned from the route, which reads its caller (`deps.py`) and counts requests per key. Behind a
trusted proxy (FORWARDED_ALLOW_IPS) the address is the one that the proxy gives, else the one that connects.
"""

import asyncio
import json
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem
from api.public import site
from api.strangers import WINDOW_S, Refusal, Strangers

_HEALTH = frozenset({"/healthz", "/readyz"})
_LNURL = ("/.well-known/lnurlp/", "/lnurlp/", "/lnurlw/")
_SENTENCE = "Too many requests from your address; try again in a minute."

_CANNOT_TELL = 503
"""The answer while the books are away, to good keys and to others."""

HELD = "held"
"""The name, in the state of a request, that marks one which is made to wait."""
Headers: TypeAlias = list[tuple[bytes, bytes]]


class Door:
    """Pure ASGI, outside everything else."""

    def __init__(self, app: ASGIApp, strangers: Strangers, refused: Callable[[str], None]) -> None:
        """`refused` hears by which bound."""
        self._app, self._strangers, self._refused = app, strangers, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})
        path, where = scope["path"], site(scope["client"][0] if scope.get("client") else "")
        key = _key(scope) if path.startswith("/v1/") else None
        if key is not None:
            await self._with_key(key, f"key:{where}", scope, receive, send)
            return
        wait = await self._wait(path, where, scope)
        if isinstance(wait, Refusal):
            await self._refuse(wait, scope, send)
            return
        await _hold(scope, wait)
        await self._app(scope, receive, send)

    async def _wait(self, path: str, where: str, scope: Scope) -> float | Refusal:
        if path not in _HEALTH:
            return await self._strangers.admit(f"client:{where}", scope["app"].state.services.lookups.count)
        turn = self._strangers.turn(f"health:{where}")
        return Refusal("second", 1, 1) if turn is None else turn

    async def _with_key(self, key: int, who: str, scope: Scope, receive: Receive, send: Send) -> None:
        is_known = self._strangers.is_good(key)
        refusal = None if is_known else self._strangers.refuse(who)
        if refusal is not None and not self._strangers.may_try():
            await self._refuse(refusal, scope, send)
            return
        state = scope["state"]

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                if "caller" in state:
                    self._strangers.was_good(key)
                elif message["status"] == _CANNOT_TELL:
                    await _hold(scope, 0 if is_known else self._strangers.pace(who))
                else:
                    self._strangers.forget(key)
                    await self._count(who, scope)
            await send(message)

        await self._app(scope, receive, answer)

    async def _count(self, who: str, scope: Scope) -> None:
        wait = await self._strangers.admit(who, scope["app"].state.services.lookups.count)
        await _hold(scope, wait.pause_s if isinstance(wait, Refusal) else wait)

    async def _refuse(self, refusal: Refusal, scope: Scope, send: Send) -> None:
        self._refused(refusal.bound)
        await _hold(scope, refusal.pause_s)
        path = scope["path"]
        manner = "lnurl" if path.startswith(_LNURL) else "page" if path.startswith("/pay/") else "problem"
        status, headers, body = _refusal(manner, refusal.retry_after_s)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _hold(scope: Scope, seconds: float) -> None:
    """Let it wait. Meanwhile its connection may be closed for another one."""
    if not seconds:
        return
    scope["state"][HELD] = True
    await asyncio.sleep(seconds)
    del scope["state"][HELD]


def _key(scope: Scope) -> int | None:
    """A number for the key that was sent, good or not."""
    for name, value in scope["headers"]:
        if name in {b"authorization", b"x-api-key"} and value:
            return hash(value)
    return None


@lru_cache(maxsize=3 * (WINDOW_S + 1))
def _refusal(manner: str, retry_after_s: int) -> tuple[int, Headers, bytes]:
    """LNURL's way of saying no is 200 with a reason (LUD-01); people are given a page, programs a problem document."""
    retry = (b"retry-after", str(retry_after_s).encode())
    if manner == "lnurl":
        body = json.dumps({"status": "ERROR", "reason": _SENTENCE}).encode()
        return 200, _headers(b"application/json", body, retry, (b"access-control-allow-origin", b"*")), body
    if manner == "page":
        body = f'<!doctype html><html lang="en"><title>Too many requests</title><p>{_SENTENCE}</p></html>'.encode()
        policy = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
        return 429, _headers(b"text/html; charset=utf-8", body, retry, policy), body
    document = problem(429, "rate_limited", _SENTENCE, fields={"retry_after_s": retry_after_s})
    return 429, _headers(document.media_type.encode(), bytes(document.body), retry), bytes(document.body)


def _headers(media_type: bytes, body: bytes, *more: tuple[bytes, bytes]) -> Headers:
    length = (b"content-length", str(len(body)).encode())
    return [(b"content-type", media_type), length, (b"cache-control", b"no-store"), *more]
