"""Requests whose body breaks off, or is no body that the door reads: a clear answer or none, and never a logged 500.

Over real sockets, to a real server: only there a client can go away in the middle.
"""

import asyncio
import logging
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
import pytest_asyncio
import uvicorn

from tests.fixtures.postgres import Database
from tests.helpers.api import Api, User, running_api

pytestmark = pytest.mark.integration

TIMES = 200
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"


@dataclass
class Door:
    """A server, and who may knock."""

    api: Api
    user: User
    port: int
    server: uvicorn.Server
    task: asyncio.Task[None]

    async def say(self, *pieces: bytes) -> bytes:
        """Send these, and give the whole answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"".join(pieces))
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def break_off(self, *pieces: bytes, reset: bool) -> None:
        """Send these, and go away: with an end of the stream, or with a RST."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if reset:
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            writer.write_eof()
            with suppress(ConnectionError):
                await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    def head(self, path: str, *lines: bytes) -> bytes:
        key = self.user.headers["Authorization"].encode()
        asked = b"POST %s HTTP/1.1\r\nHost: api\r\nConnection: close\r\n" % path.encode()
        return asked + b"Authorization: %s\r\nIdempotency-Key: k\r\n" % key + b"".join(lines) + b"\r\n"

    async def requests_answered(self, status: str) -> float:
        """As the metrics count them."""
        text = (await self.api.http.get("/metrics")).text
        return sum(float(each) for each in re.findall(rf'requests_total{{.*status="{status}"}} (\S+)', text))


@pytest_asyncio.fixture(scope="module")
async def api(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    folder = tmp_path_factory.mktemp("api")
    async with running_api(
        shared_ledger_db.app_dsn, shared_ledger_db.owner_dsn, folder, rate_limit_per_minute=0
    ) as api:
        yield api


@pytest_asyncio.fixture(scope="module")
async def user(api: Api) -> User:
    return await api.open_account(("read", "receive", "send", "admin"), username="bob")


@pytest_asyncio.fixture
async def door(api: Api, user: User) -> AsyncIterator[Door]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(api.app, port=0, lifespan="off", log_config=None, access_log=False))
        task = asyncio.create_task(server.serve(sockets=[listening]))
        yield Door(api, user, listening.getsockname()[1], server, task)
        server.should_exit = True
        await task


PATHS = [
    *("/pay/bob", "/v1/accounts", "/v1/invoices", "/v1/decode", "/v1/payments", "/v1/payments/batch"),
    *("/v1/payments/quote", "/v1/withdraw-links", "/v1/admin/corrections", "/v1/admin/decisions"),
]


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_breaks_off_is_no_error_of_ours(
    door: Door, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    head = door.head(path, FORM, b"Content-Length: 100\r\n")
    chunked = door.head(path, FORM, b"Transfer-Encoding: chunked\r\n")
    ways = [(head,), (head, b"amount_sat=21&"), (chunked,), (chunked, b"5\r\namo"), (chunked, b"5\r\namoun\r\n")]
    times = TIMES if path == "/pay/bob" else 20
    for number in range(times):
        await door.break_off(*ways[number % len(ways)], reset=number % 2 == 1)
    door.server.should_exit = True
    await door.task  # every request has been ended, and counted
    assert await door.requests_answered("5..") == 0
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize(
    ("lines", "body", "status"),
    [
        ((FORM,), b"amount_sat=21", 303),
        ((FORM,), b"amount_sat=21&memo=%00%ff", 422),
        ((FORM,), b"amount_sat=%zz&memo=\xff", 422),
        ((FORM,), b"&".join(b"a=1" for _ in range(11)), 422),
        ((FORM,), b"amount_sat=21&memo=" + b"x" * 8_192, 413),
        ((FORM,), b"", 422),
        ((b"Content-Type: multipart/form-data; boundary=x\r\n",), b"--x\r\nContent-Disposition: form-data\r\n", 400),
        ((b"Content-Type: multipart/form-data\r\n",), b"amount_sat=21", 400),
        ((b"Content-Type: application/json\r\n",), b'{"amount_sat": 21}', 400),
        ((b"Content-Type: \xff\r\n",), b"amount_sat=21", 400),
        ((b"Content-Type: APPLICATION/x-www-form-URLENCODED; charset=utf-8\r\n",), b"amount_sat=21", 303),
    ],
)
async def test_a_form_is_read_or_refused(door: Door, lines: tuple[bytes, ...], body: bytes, status: int) -> None:
    announced = b"Content-Length: %d\r\n" % len(body)
    answer = await door.say(door.head("/pay/bob", *lines, announced), body)
    assert answer[9:12] == str(status).encode(), answer[:400]
    if status != 303:
        assert b"<!doctype html>" in answer


async def test_a_form_that_says_how_large_it_is_is_not_read(door: Door) -> None:
    answer = await door.say(door.head("/pay/bob", FORM, b"Content-Length: 1000000000\r\n"))
    assert answer[9:12] == b"413"
