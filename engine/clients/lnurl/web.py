"""Requests to web addresses that strangers name, behind the guard (`guard.py`).

    all addresses    eight at most, of both families. A dead or slow one does not hold up the next (RFC 8305). The
                     request goes to the first that is connected. When that one breaks off, or has not answered in
                     full after 2 s, the request also goes to the next
    redirects        two at most, each past the same guard
    bounds           5 s in all, 256 KiB, an answer that is one JSON object (engine/domain/outside.py)

Only GET is used, without cookies, credentials or the proxy of our environment. Each request has a connection of its
own: a connection proven to lead to one host is never used for another at the same address. A request changes nothing
here, so it may be repeated; its effect there is up to the other side.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import zip_longest
from typing import Any, TypeAlias

import httpx

from engine.clients.lnurl.guard import allowed_place, refused, require_public
from engine.domain.errors import Unavailable
from engine.domain.lnurl import MAX_URL_LENGTH
from engine.domain.outside import is_harmless, read_json

LIMIT_S = 5
MAX_BYTES = 262_144
MAX_REDIRECTS = 2
MAX_ADDRESSES = 8

Json: TypeAlias = dict[str, Any]
_QUESTIONS = 16
"""How many requests run at the same time. Each may hold as many connections as a host has addresses."""
_NEXT_ADDRESS_S = 0.25
"""How long one address has to connect before the next is tried as well (RFC 8305)."""
_SILENCE_S = 2
"""How long the first address has to answer in full before another is asked as well."""
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "millrace"}


class Web:
    """The client for requests to the outside. Create it in the process that uses it."""

    def __init__(self, *, guarded: bool) -> None:
        """`guarded`: https and public hosts only. Off only on regtest, where everything is on one machine."""
        self._guarded = guarded
        self._transport = httpx.AsyncHTTPTransport(
            verify=ssl.create_default_context(),
            limits=httpx.Limits(max_connections=_QUESTIONS * MAX_ADDRESSES, max_keepalive_connections=0),
        )
        # A pool of its own: slow name look-ups must not delay connections to our own services.
        self._resolver = ThreadPoolExecutor(_QUESTIONS, thread_name_prefix="resolve")

    @property
    def scheme(self) -> str:
        """The scheme for a bare domain."""
        return "https" if self._guarded else "http"

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()
        self._resolver.shutdown(wait=False, cancel_futures=True)

    async def ask(self, url: str, query: Mapping[str, str] | None = None) -> Json:
        """The JSON object at this URL, with any HTTP status. `query` is added to the URL's own query.

        Raises Invalid (`invalid_destination`) for a URL that we do not call, and Unavailable
        (`destination_unavailable`) when there is no such answer.
        """
        try:
            async with asyncio.timeout(LIMIT_S):
                return _object(await self._get(_parsed(url, query or {}), MAX_REDIRECTS))
        except TimeoutError:
            raise _silent(f"no answer within {LIMIT_S} s") from None
        except httpx.HTTPError as error:
            raise _silent(repr(error)) from error

    async def _get(self, url: httpx.URL, redirects_left: int) -> bytes:
        answer = await self._first_answer(url, await self._resolve(url))
        if isinstance(answer, bytes):
            return answer
        if redirects_left == 0:
            raise _silent(f"more than {MAX_REDIRECTS} redirects")
        return await self._get(_parsed(answer, {}, base=url), redirects_left - 1)

    async def _first_answer(self, url: httpx.URL, addresses: Sequence[str]) -> bytes | str:
        """The first address's answer that comes: a body, or where it redirects. Raises the error of the last one."""
        turn, left = asyncio.Lock(), list(addresses)
        tasks: list[asyncio.Task[bytes | str]] = []
        try:
            asking: set[asyncio.Task[bytes | str]] = set()
            while left or asking:
                if left:
                    tasks.append(asyncio.create_task(self._ask_at(url, left.pop(0), turn)))
                    asking.add(tasks[-1])
                told, asking = await asyncio.wait(
                    asking, timeout=_NEXT_ADDRESS_S if left else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in told:
                    if not isinstance(task.exception(), httpx.TransportError):
                        return task.result()
            return tasks[-1].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_at(self, url: httpx.URL, address: str, turn: asyncio.Lock) -> bytes | str:
        """The answer of one address. Connects at once, and sends the request when it has the turn."""
        asked = False

        async def traced(event: str, _info: object) -> None:
            nonlocal asked
            if event.endswith("send_request_headers.started"):
                with suppress(TimeoutError):
                    async with asyncio.timeout(_SILENCE_S):
                        asked = await turn.acquire()

        request = httpx.Request(
            "GET",
            url.copy_with(host=address),
            headers={**_HEADERS, "Host": url.netloc.decode("ascii")},
            extensions={"sni_hostname": url.raw_host.decode("ascii"), "trace": traced},
        )
        try:
            answer = await self._transport.handle_async_request(request)
            try:
                return answer.headers["location"] if answer.has_redirect_location else await _body(answer)
            finally:
                await answer.aclose()
        finally:
            if asked:
                turn.release()

    async def _resolve(self, url: httpx.URL) -> list[str]:
        """The addresses to connect to, in order. Every address of the host must be one that we may call."""
        host, port = allowed_place(url, guarded=self._guarded)
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._resolver, _addresses, host, port)
        except (OSError, UnicodeError) as error:
            raise _silent(f"{host}: {error}") from error
        if self._guarded:
            require_public(found)
        return _in_turn(found)


def _in_turn(found: Sequence[str]) -> list[str]:
    """Each address once, in the resolver's order, with the two families alternating."""
    unique = list(dict.fromkeys(found))
    first = [each for each in unique if (":" in each) == (":" in unique[0])]
    second = [each for each in unique if each not in first]
    mixed = [each for pair in zip_longest(first, second) for each in pair if each is not None]
    return mixed[:MAX_ADDRESSES]


def _addresses(host: str, port: int) -> list[str]:
    return [str(place[0]) for *_, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _parsed(text: str, query: Mapping[str, str], base: httpx.URL | None = None) -> httpx.URL:
    if not is_harmless(text):
        raise refused("it is no URL")
    try:
        url = httpx.URL(text) if base is None else base.join(text)
        url = url.copy_merge_params(dict(query)) if query else url
    except (httpx.InvalidURL, ValueError, TypeError):
        raise refused("it is no URL") from None
    if len(str(url)) > MAX_URL_LENGTH:
        raise refused(f"its URL has more than {MAX_URL_LENGTH} characters")
    return url.copy_with(fragment=None)


async def _body(answer: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in answer.aiter_raw():
        body += chunk
        if len(body) > MAX_BYTES:
            raise _silent(f"an answer of more than {MAX_BYTES} bytes")
    return bytes(body)


def _object(body: bytes) -> Json:
    try:
        found = read_json(body)
    except ValueError:
        raise _silent("an answer that is not JSON") from None
    if not isinstance(found, dict):
        raise _silent("an answer that is no JSON object")
    return found


def _silent(reason: str) -> Unavailable:
    return Unavailable(f"the destination gave {reason}", code="destination_unavailable")
