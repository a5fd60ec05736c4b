"""How many connections there may be, in all and of one address, on a real process."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from infra.local.stack import wait_until
from tests.helpers.door import Door, drain, open_door

pytestmark = pytest.mark.integration

MOST, MOST_OF_ONE = 64, 8
ASK = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
STRANGER, ANOTHER = "127.0.0.2", "127.0.0.3"
BOUNDS = {"MAX_CONNECTIONS": str(MOST), "MAX_CONNECTIONS_PER_ADDRESS": str(MOST_OF_ONE), "HEAD_TIMEOUT_S": "5"}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with open_door(tmp_path_factory.mktemp("door"), BOUNDS) as opened:
        yield opened


def half_open(door: Door, count: int, stack: ExitStack, source: str = "127.0.0.1") -> list[socket.socket]:
    """So many clients that have begun a head and do not go on."""
    knocks = []
    for _ in range(count):
        knock = stack.enter_context(door.connect(source=source))
        knock.sendall(ASK)
        knocks.append(knock)
    return knocks


def whole(knock: socket.socket) -> bytes:
    """The answer to the rest of a head."""
    knock.sendall(b"Connection: close\r\n\r\n")
    return drain(knock)


def test_silent_clients_shut_nobody_out_and_their_descriptors_come_back(door: Door) -> None:
    before = door.descriptors()
    with ExitStack() as stack:
        half_open(door, 10 * MOST, stack)
        for _ in range(20):
            assert door.is_answering()
        assert door.descriptors() <= before + MOST + 2
        wait_until(
            lambda: door.descriptors() <= before, "descriptors to come back while the clients are still there", 30
        )


def test_fewer_descriptors_than_connections_are_enough(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("poor")
    with open_door(folder, {"MAX_CONNECTIONS": "5000"}, before=("prlimit", "--nofile=300:300")) as door:
        with ExitStack() as stack:
            half_open(door, 500, stack)
            for _ in range(20):
                assert door.is_answering()
        assert b"descriptors are allowed" in (folder / "api.log").read_bytes()


def test_one_address_has_its_share_and_the_next_has_its_own(door: Door) -> None:
    with ExitStack() as stack:
        mine = half_open(door, MOST_OF_ONE, stack, STRANGER)
        refused = door.ask(b"", source=STRANGER)
        assert refused.startswith(b"HTTP/1.1 429")
        assert b"retry-after: 1" in refused
        assert whole(half_open(door, 1, stack, ANOTHER)[0]).startswith(b"HTTP/1.1 200")
        assert whole(mine[0]).startswith(b"HTTP/1.1 200")
        wait_until(lambda: answered(door, STRANGER), "room for one more of this address", 30)


def answered(door: Door, source: str) -> bool:
    return door.ask(ASK + b"Connection: close\r\n\r\n", source=source).startswith(b"HTTP/1.1 200")


def test_a_proxy_is_many_people(door: Door) -> None:
    with ExitStack() as stack:
        for knock in half_open(door, 3 * MOST_OF_ONE, stack):
            assert whole(knock).startswith(b"HTTP/1.1 200")


POST = b"POST /v1/accounts HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer an-admin-key-for-tests\r\n"


def test_a_client_that_has_asked_is_not_shut_out_by_silent_ones(door: Door) -> None:
    with ExitStack() as stack:
        asking = stack.enter_context(door.connect())
        asking.sendall(POST + b"Connection: close\r\nContent-Length: 1\r\n\r\n")
        half_open(door, 3 * MOST, stack)
        asking.sendall(b"{")
        assert drain(asking).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "wire",
    [
        ASK + b"\r\n",
        POST + b"Content-Length: 9\r\n\r\n",
        b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n",
        b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\n\r\n",
        b"no HTTP",
    ],
    ids=["idle", "no body", "answered without its body", "nobody reads", "refused"],
)
def test_an_unfinished_request_shuts_nobody_out(door: Door, wire: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(3 * MOST):
            stack.enter_context(door.connect(receive_buffer=4_096)).sendall(wire)
        for number in range(20):
            assert answered(door, f"127.0.2.{1 + number}"), "another address, whose requests are not counted yet"


@pytest.mark.parametrize("behind", [0, 1], ids=["alone", "one behind it"])
def test_strangers_who_are_made_to_wait_shut_nobody_out(tmp_path: Path, behind: int) -> None:
    """Whatever they send behind the request that waits: two of each address wait here, for one second and for two."""
    told = {**BOUNDS, "PUBLIC_RATE_LIMIT_PER_SECOND": "1", "PUBLIC_RATE_LIMIT_PER_MINUTE": "0"}
    ask = b"GET /nowhere HTTP/1.1\r\nHost: a\r\n"
    with open_door(tmp_path, told) as door, ExitStack() as stack:
        strangers = [f"127.0.1.{1 + number}" for number in range(MOST)]
        for each in strangers:
            stack.enter_context(door.connect(source=each)).sendall((ask + b"\r\n") * 2)
        for each in 2 * strangers:
            stack.enter_context(door.connect(source=each)).sendall((ask + b"\r\n") * (1 + behind))
        answer = door.ask(ASK + b"Connection: close\r\n\r\n", source=ANOTHER)
        assert answer.startswith(b"HTTP/1.1 200"), "who comes then is shut out"


def test_when_all_are_being_served_one_more_is_told_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, ExitStack() as stack:
        postgres = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/nothing"
        door = stack.enter_context(open_door(tmp_path, {**BOUNDS, "POSTGRES_DSN": postgres}))
        for _ in range(MOST):
            asking = stack.enter_context(door.connect())
            asking.sendall(b"GET /v1/account HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer mr_a_b\r\n\r\n")
        wait_until(lambda: door.ask(b"").startswith(b"HTTP/1.1 503"), "a process that is full", 30)
        wait_until(door.is_answering, "room again", 30)
