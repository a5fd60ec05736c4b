"""A payee's name with several addresses: some dead, some slow. Names are made up; the sockets are real, on loopback."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import Any

import httpx
import pytest
import pytest_asyncio

from engine.clients.lnurl import web as module
from engine.clients.lnurl.web import MAX_ADDRESSES, Web
from engine.domain.errors import Invalid, Unavailable

pytestmark = pytest.mark.unit

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"tag":"payRequest"}'
Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest_asyncio.fixture
async def web() -> AsyncIterator[Web]:
    unguarded = Web(guarded=False)
    yield unguarded
    await unguarded.close()


@pytest.fixture
def has(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Every name has these addresses from now on."""

    def resolve_to(*addresses: str) -> None:
        def resolve(_host: str, port: int, **_: Any) -> list[Any]:
            return [
                (socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port))
                for one in addresses
            ]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)

    return resolve_to


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(ANSWER)


async def hang_up(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


def free_port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@asynccontextmanager
async def serving(port: int, **behaviours: Behaviour) -> AsyncIterator[list[str]]:
    """Servers at these addresses, by the last number of 127.0.0.x; who was asked, in order."""
    asked: list[str] = []
    async with AsyncExitStack() as servers:
        for name, behave in behaviours.items():

            async def serve(
                reader: asyncio.StreamReader,
                writer: asyncio.StreamWriter,
                name: str = name,
                behave: Behaviour = behave,
            ) -> None:
                asked.append(name)
                try:
                    await behave(reader, writer)
                except (ConnectionError, asyncio.IncompleteReadError):
                    asked.remove(name)  # it was connected to, and asked nothing
                finally:
                    writer.close()

            server = await asyncio.start_server(serve, f"127.0.0.{name.removeprefix('at_')}", port)
            await servers.enter_async_context(server)
        yield asked


@asynccontextmanager
async def deaf(address: str, port: int) -> AsyncIterator[None]:
    """A host that drops what comes: a listener whose queue is full, so that nobody is ever connected."""
    with closing(socket.socket()) as listener, closing(socket.socket()) as first:
        listener.bind((address, port))
        listener.listen(0)
        first.connect((address, port))
        yield


async def test_the_first_address_is_dead_and_the_second_is_asked(web: Web, has: Callable[..., None]) -> None:
    port = free_port()
    has("::1", "127.0.0.1")
    async with serving(port, at_1=answer) as asked:
        assert await web.ask(f"http://dual.example:{port}/") == {"tag": "payRequest"}
    assert asked == ["at_1"]


async def test_an_address_that_drops_what_comes_takes_not_all_the_time(web: Web, has: Callable[..., None]) -> None:
    port = free_port()
    has("127.0.0.2", "127.0.0.3", "127.0.0.1")
    async with deaf("127.0.0.2", port), deaf("127.0.0.3", port), serving(port, at_1=answer) as asked:
        assert await web.ask(f"http://dual.example:{port}/") == {"tag": "payRequest"}
    assert asked == ["at_1"]


@pytest.mark.parametrize("behave", [hang_up, say_nothing])
async def test_one_that_takes_the_question_and_never_answers_is_not_the_last(
    web: Web, has: Callable[..., None], behave: Behaviour
) -> None:
    port = free_port()
    has("127.0.0.2", "127.0.0.1")
    async with serving(port, at_2=behave, at_1=answer) as asked:
        assert await web.ask(f"http://dual.example:{port}/") == {"tag": "payRequest"}
    assert asked == ["at_2", "at_1"]


async def test_the_address_that_answers_is_the_only_one_asked(web: Web, has: Callable[..., None]) -> None:
    """A question may make an invoice over there: it is put once, also when connecting takes its time."""
    port = free_port()
    has("127.0.0.1", "127.0.0.2", "127.0.0.3")
    let_go = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await let_go.wait()
        writer.write(ANSWER)

    async with serving(port, at_1=slow, at_2=answer, at_3=answer) as asked:
        question = asyncio.create_task(web.ask(f"http://dual.example:{port}/"))
        while not asked:
            await asyncio.sleep(0)
        let_go.set()
        assert await question == {"tag": "payRequest"}
    assert asked == ["at_1"]


async def test_when_all_are_dead_the_payee_is_away(web: Web, has: Callable[..., None]) -> None:
    has("::1", "127.0.0.1", "127.0.0.2")
    with pytest.raises(Unavailable) as away:
        await web.ask(f"http://dual.example:{free_port()}/")
    assert away.value.code == "destination_unavailable"


async def test_the_time_for_all_addresses_together_is_bounded(
    web: Web, has: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT_S", 0.2)
    port = free_port()
    has("127.0.0.1", "127.0.0.2")
    async with serving(port, at_1=say_nothing, at_2=say_nothing):
        with pytest.raises(Unavailable, match="no answer within"):
            await web.ask(f"http://dual.example:{port}/")


async def test_an_answer_is_an_answer_and_nobody_else_is_asked_for_a_better_one(
    web: Web, has: Callable[..., None]
) -> None:
    port = free_port()
    has("127.0.0.2", "127.0.0.1")

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")

    async with serving(port, at_2=nonsense, at_1=answer) as asked:
        with pytest.raises(Unavailable, match="not JSON"):
            await web.ask(f"http://dual.example:{port}/")
    assert asked == ["at_2"]


async def test_a_redirect_to_a_dual_stack_name_is_followed_to_the_address_that_lives(
    web: Web, has: Callable[..., None]
) -> None:
    port = free_port()
    has("127.0.0.2", "127.0.0.1")

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /end"):
            writer.write(ANSWER)
        else:
            writer.write(b"HTTP/1.1 302 X\r\nLocation: /end\r\nContent-Length: 0\r\n\r\n")

    async with serving(port, at_1=redirect) as asked:
        assert await web.ask(f"http://dual.example:{port}/") == {"tag": "payRequest"}
    assert asked == ["at_1", "at_1"]


def _public(number: int) -> str:
    return f"93.184.215.{number}"


@asynccontextmanager
async def guarded_among_the_dead() -> AsyncIterator[tuple[Web, list[str]]]:
    """One that keeps to the public internet, where no host answers; and the hosts that it asked, in order."""
    guarded = Web(guarded=True)
    seen: list[str] = []

    def heard(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        raise httpx.ConnectError("dead")

    guarded._transport = httpx.MockTransport(heard)  # type: ignore[assignment]
    try:
        yield guarded, seen
    finally:
        await guarded.close()


async def test_each_address_is_checked_before_any_is_asked(has: Callable[..., None]) -> None:
    """One that is not public refuses the name, wherever it stands: what lists both is made to lead us inside."""
    async with guarded_among_the_dead() as (guarded, seen):
        for addresses in (
            [_public(1), "10.0.0.1"],
            ["fd00::1", _public(1)],
            [*map(_public, range(1, 2 * MAX_ADDRESSES)), "127.0.0.1"],
        ):
            has(*addresses)
            with pytest.raises(Invalid, match="public internet"):
                await guarded.ask("https://mixed.example/")
        assert seen == []
        has("2606:2800:21f::1", "2606:2800:21f::1", _public(1))
        with pytest.raises(Unavailable):
            await guarded.ask("https://dual.example/")
        assert seen == ["2606:2800:21f::1", _public(1)]


async def test_some_of_very_many_addresses_of_each_family_are_tried(has: Callable[..., None]) -> None:
    has(*(f"2606:2800:21f::{number:x}" for number in range(1, 60)), _public(1))
    async with guarded_among_the_dead() as (guarded, seen):
        with pytest.raises(Unavailable):
            await guarded.ask("https://crowd.example/")
    assert len(seen) == MAX_ADDRESSES
    assert seen[1] == _public(1)
