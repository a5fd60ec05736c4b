"""The first step of each request: without a valid key it is counted by client address (`stranger_limit.py`).

    /healthz, /readyz        cheap, and asked by machines that need the truth: only made to wait for their turn
    /v1/…, with a key        passes if the key was valid a moment ago; else it is looked up, and counted if not valid.
                             While keys cannot be looked up (503), it waits for its turn and is not counted
    everything else          counted, with a key or without: open paths, pages, paths that do not exist

The route tells whether a key is valid: it reads its caller (`api/access.py`) and counts the requests of each key.
Behind a trusted proxy (FORWARDED_ALLOW_IPS) the address is the one that the proxy gives, else the one that connects.
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache

from fastapi import Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.address import site
from api.http.errors import problem
from api.http.stranger_limit import WINDOW_S, Refusal, Strangers

_HEALTH = frozenset({"/healthz", "/readyz"})
_LNURL = ("/.well-known/lnurlp/", "/lnurlp/", "/lnurlw/")
_SENTENCE = "Too many requests from your address; try again in a minute."

_CANNOT_TELL = 503
"""The status while Postgres is away, for valid keys and for others."""

HELD = "held"
"""The entry in the state of a request that marks it as made to wait."""


class Admission:
    """Pure ASGI, outside everything else."""

    def __init__(self, app: ASGIApp, strangers: Strangers, refused: Callable[[str], None]) -> None:
        """`refused` is called with the bound that refuses a request."""
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
            await self._refuse(wait, scope, receive, send)
            return
        await _hold(scope, wait)
        await self._app(scope, receive, send)

    async def _wait(self, path: str, where: str, scope: Scope) -> float | Refusal:
        if path not in _HEALTH:
            return await self._strangers.admit(f"client:{where}", scope["app"].state.resources.lookups.count)
        turn = self._strangers.turn(f"health:{where}")
        return Refusal("second", 1, 1) if turn is None else turn

    async def _with_key(self, key: int, who: str, scope: Scope, receive: Receive, send: Send) -> None:
        is_known = self._strangers.is_good(key)
        refusal = None if is_known else self._strangers.refuse(who)
        if refusal is not None and not self._strangers.may_try():
            await self._refuse(refusal, scope, receive, send)
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
        wait = await self._strangers.admit(who, scope["app"].state.resources.lookups.count)
        await _hold(scope, wait.pause_s if isinstance(wait, Refusal) else wait)

    async def _refuse(self, refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        self._refused(refusal.bound)
        await _hold(scope, refusal.pause_s)
        path = scope["path"]
        manner = "lnurl" if path.startswith(_LNURL) else "page" if path.startswith("/pay/") else "problem"
        await _refusal(manner, refusal.retry_after_s)(scope, receive, send)


async def _hold(scope: Scope, seconds: float) -> None:
    """Make the request wait. Meanwhile its connection may be closed to make room for another one."""
    if not seconds:
        return
    scope["state"][HELD] = True
    await asyncio.sleep(seconds)
    del scope["state"][HELD]


def _key(scope: Scope) -> int | None:
    """A hash of the key that was sent, valid or not."""
    for name, value in scope["headers"]:
        if name in {b"authorization", b"x-api-key"} and value:
            return hash(value)
    return None


@lru_cache(maxsize=3 * (WINDOW_S + 1))
def _refusal(manner: str, retry_after_s: int) -> Response:
    """LNURL gets 200 with a reason (LUD-01), people get a page, and programs a problem document."""
    headers = {"Retry-After": str(retry_after_s), "Cache-Control": "no-store"}
    if manner == "lnurl":
        headers["Access-Control-Allow-Origin"] = "*"
        return JSONResponse({"status": "ERROR", "reason": _SENTENCE}, headers=headers)
    if manner == "page":
        headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
        page = f'<!doctype html><html lang="en"><title>Too many requests</title><p>{_SENTENCE}</p></html>'
        return HTMLResponse(page, 429, headers)
    return problem(429, "rate_limited", _SENTENCE, fields={"retry_after_s": retry_after_s}, headers=headers)
