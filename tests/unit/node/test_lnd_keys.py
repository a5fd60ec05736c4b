"""A certificate or macaroon that is replaced while we run: over real TLS, with a server of ours in the node's place."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from engine.clients.lnd import grpc_channel
from engine.clients.lnd.grpc_channel import open_channel, translated
from engine.domain.errors import InvariantBroken, OutcomeUnknown, Unavailable
from engine.domain.outside import is_harmless
from engine.settings import NodeSettings
from tests.helpers.node_credential import macaroon, self_signed

pytestmark = pytest.mark.unit


@dataclass
class Node:
    """In LND's place: it answers whoever shows the macaroon of the moment."""

    folder: Path
    macaroon: bytes = macaroon(1)
    port: int = 0
    served: int = 0
    refused: int = 0
    words: str = ""
    """What it says in place of an answer."""
    hold: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def certificate_file(self) -> Path:
        return self.folder / "tls.cert"

    @property
    def macaroon_file(self) -> Path:
        return self.folder / "ours.macaroon"

    def settings(self) -> NodeSettings:
        return NodeSettings(
            address=f"127.0.0.1:{self.port}", tls_cert=self.certificate_file, macaroon=self.macaroon_file
        )

    @asynccontextmanager
    async def running(self, key_and_certificate: tuple[bytes, bytes]) -> AsyncIterator[None]:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Handler(self),))
        credentials = grpc.ssl_server_credentials([key_and_certificate])
        self.port = server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        await server.start()
        try:
            yield
        finally:
            await server.stop(None)


class _Handler(grpc.GenericRpcHandler):  # type: ignore[type-arg] # generic in the stubs only
    def __init__(self, node: Node) -> None:
        self._node = node

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        node = self._node

        async def let_in(context: Any) -> None:
            if ("macaroon", node.macaroon.hex()) not in {(key, value) for key, value in context.invocation_metadata()}:
                node.refused += 1
                await context.abort(grpc.StatusCode.UNKNOWN, "verification failed: signature mismatch after caveat")
            node.served += 1

        async def once(request: bytes, context: Any) -> bytes:
            await let_in(context)
            if node.words:
                await context.abort(grpc.StatusCode.UNKNOWN, node.words)
            return request

        async def twice(request: bytes, context: Any) -> AsyncIterator[bytes]:
            await let_in(context)
            yield request
            await node.hold.wait()
            await let_in(context)

        if handler_call_details.method.endswith("Twice"):
            return grpc.unary_stream_rpc_method_handler(twice)
        return grpc.unary_unary_rpc_method_handler(once)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr(grpc_channel, "_LOOK_EVERY_S", 0, raising=False)
    return Node(tmp_path)


Ask = Callable[[], Awaitable[bytes]]


@asynccontextmanager
async def connected(node: Node) -> AsyncIterator[tuple[Ask, Ask]]:
    """A question with one answer, and the first answer of a stream."""
    channel: Any = open_channel(node.settings())
    unary, stream = channel.unary_unary("/a.B/Once"), channel.unary_stream("/a.B/Twice")

    async def once() -> bytes:
        with translated("lnd-1"):
            return bytes(await unary(b"?", timeout=5))

    async def first() -> bytes:
        with translated("lnd-1"):
            async for message in stream(b"?", timeout=5):
                return bytes(message)
        raise AssertionError("the stream ended")

    try:
        yield once, first
    finally:
        await channel.close(None)


@pytest.mark.parametrize("kind", [0, 1])
async def test_a_new_certificate_is_taken_up_by_what_runs(node: Node, kind: int) -> None:
    old, new = self_signed(), self_signed()
    node.certificate_file.write_bytes(old[1])
    node.macaroon_file.write_bytes(node.macaroon)
    async with node.running(old), connected(node) as asks:
        assert await asks[kind]() == b"?"
    async with connected(node) as asks:
        async with node.running(old):
            assert await asks[kind]() == b"?"
        async with node.running(new):
            for content in (old[1], new[1][: len(new[1]) // 2], b"", None):
                node.certificate_file.unlink(missing_ok=True)
                if content is not None:
                    node.certificate_file.write_bytes(content)
                for _ in range(3):
                    with pytest.raises(Unavailable):
                        await asks[kind]()
            node.certificate_file.write_bytes(new[1])
            assert await asks[kind]() == b"?"  # the very first: no connection had come about, so it is made again
            assert node.served == 3


async def test_a_certificate_that_is_put_there_before_its_node_starts_breaks_nothing(node: Node) -> None:
    old, new = self_signed(), self_signed()
    node.certificate_file.write_bytes(old[1])
    node.macaroon_file.write_bytes(node.macaroon)
    async with connected_to(node, old) as (once, _first):
        node.certificate_file.write_bytes(new[1])
        assert [await once() for _ in range(3)] == [b"?"] * 3


@asynccontextmanager
async def connected_to(node: Node, keys: tuple[bytes, bytes]) -> AsyncIterator[tuple[Ask, Ask]]:
    """A node that runs, and two questions, the first of which has been answered."""
    node.certificate_file.write_bytes(keys[1])
    node.macaroon_file.write_bytes(node.macaroon)
    async with node.running(keys), connected(node) as asks:
        assert await asks[0]() == b"?"
        yield asks


@pytest.mark.parametrize(("interval_s", "looks"), [(3600, 1), (0, 5)])
async def test_however_many_calls_fail_a_channel_is_made_once_in_an_interval(
    node: Node, monkeypatch: pytest.MonkeyPatch, interval_s: int, looks: int
) -> None:
    made: list[object] = []
    make = grpc.aio.secure_channel

    def make_and_count(*args: Any, **how: Any) -> grpc.aio.Channel:
        made.append(args)
        return make(*args, **how)

    monkeypatch.setattr(grpc.aio, "secure_channel", make_and_count)
    keys = self_signed()
    node.certificate_file.write_bytes(keys[1])
    node.macaroon_file.write_bytes(node.macaroon)
    async with node.running(keys):
        pass
    async with connected(node) as (once, _first):
        async with node.running(keys):
            assert await once() == b"?"
        made.clear()
        monkeypatch.setattr(grpc_channel, "_LOOK_EVERY_S", interval_s)
        for _ in range(5):
            node.certificate_file.write_bytes(self_signed()[1])
            with pytest.raises(Unavailable):
                await once()
    assert len(made) == looks


@pytest.mark.parametrize("kind", [0, 1])
async def test_a_new_macaroon_is_taken_up_in_the_very_call_that_was_refused(node: Node, kind: int) -> None:
    async with connected_to(node, self_signed()) as asks:
        node.macaroon = macaroon(2)
        with pytest.raises(InvariantBroken) as refused:  # the file has the old one: that is for an operator
            await asks[kind]()
        assert refused.value.code == "node_refuses"
        node.macaroon_file.write_bytes(node.macaroon)
        assert await asks[kind]() == b"?"
        node.macaroon = macaroon(3)
        node.macaroon_file.write_bytes(node.macaroon)
        assert await asyncio.gather(*(asks[kind]() for _ in range(5))) == [b"?"] * 5


@pytest.mark.parametrize("kind", [0, 1])
async def test_a_macaroon_that_is_missing_or_not_whole_means_away_and_not_refused(node: Node, kind: int) -> None:
    async with connected_to(node, self_signed()) as asks:
        node.macaroon = macaroon(2)
        for content in (None, b"", node.macaroon[:-1], node.macaroon[: len(node.macaroon) // 2]):
            node.macaroon_file.unlink(missing_ok=True)
            if content is not None:
                node.macaroon_file.write_bytes(content)
            with pytest.raises(Unavailable, match="macaroon"):
                await asks[kind]()
        node.macaroon_file.write_bytes(node.macaroon)
        assert await asks[kind]() == b"?"


async def test_files_that_come_after_the_start_are_found(node: Node) -> None:
    keys = self_signed()
    node.certificate_file.write_bytes(keys[1])
    node.macaroon_file.write_bytes(node.macaroon)
    async with node.running(keys):
        settings = node.settings()
        node.certificate_file.unlink()
        channel: Any = open_channel(settings)
        try:
            ask = channel.unary_unary("/a.B/Once")
            with pytest.raises(Unavailable, match="No such file"), translated("lnd-1"):
                await ask(b"?", timeout=5)
            node.certificate_file.write_bytes(keys[1])
            assert await ask(b"?", timeout=5) == b"?"
        finally:
            await channel.close(None)


async def test_a_stream_that_has_told_something_is_not_begun_again(node: Node) -> None:
    """Its caller would hear the same twice: he is told of the refusal, and what he asks next is let in."""
    async with connected_to(node, self_signed()) as (once, _first):
        channel: Any = open_channel(node.settings())
        try:
            stream = channel.unary_stream("/a.B/Twice")(b"?", timeout=5)
            assert await anext(aiter(stream)) == b"?"
            served = node.served
            node.macaroon = macaroon(2)
            node.macaroon_file.write_bytes(node.macaroon)
            node.hold.set()
            with pytest.raises(InvariantBroken), translated("lnd-1"):
                await anext(stream)
            assert (node.served, node.refused) == (served, 1)
            assert await once() == b"?"
        finally:
            await channel.close(None)


@pytest.mark.parametrize("words", ["no\0route", "x" * 2_000, "pay \u202etxt.exe\r\n", "\x1b[31m" + "é" * 900])
async def test_a_nodes_words_come_in_harmless_and_short(node: Node, words: str) -> None:
    """It repeats in them what an invoice or a peer has told it; they end in books and histories."""
    async with connected_to(node, self_signed()) as (once, _first):
        node.words = words
        with pytest.raises(OutcomeUnknown) as told:
            await once()
        assert is_harmless(told.value.detail)
        assert len(told.value.detail.encode()) < 600
