"""Requests behind requests, heads that can be read in two ways, and other words of HTTP, on a real process."""

from collections.abc import Iterator

import pytest

from tests.helpers.door import MIB, Door, drain, open_door

pytestmark = pytest.mark.integration

START = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /v1/accounts HTTP/1.1\r\nHost: a\r\n"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with open_door(tmp_path_factory.mktemp("door"), {}) as opened:
        yield opened


def test_pipelined_requests_are_answered_in_their_order(door: Door) -> None:
    asked = [b"/healthz", b"/nowhere", b"/healthz"]
    last = b"Connection: close\r\n"
    wire = b"".join(b"GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n" % (path, last * (n == 2)) for n, path in enumerate(asked))
    assert statuses(door.ask(wire)) == [200, 404, 200]


def test_a_flood_of_pipelined_requests_ends_after_some(door: Door) -> None:
    before = door.rss()
    found = statuses(door.ask((START + b"\r\n") * 50_000))
    assert 1 <= len(found) <= 2_000
    assert set(found) == {200}
    assert door.rss() - before < 16 * MIB


def statuses(told: bytes) -> list[int]:
    return [int(each[:3]) for each in told.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize(
    "more",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: +5\r\n\r\nabcde",
        b"Content-Length: 99999999999999999999999\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"X: a\rb\r\n\r\n",
        b"X: a\0b\r\n\r\n",
        b" folded: x\r\n\r\n",
        b"no colon\r\n\r\n",
    ],
)
def test_an_ambiguous_request_is_refused(door: Door, more: bytes) -> None:
    told = door.ask(POST + more + b"GET /docs HTTP/1.1\r\nHost: a\r\n\r\n")
    assert statuses(told)[-1:] == [400]
    assert b"swagger" not in told, "the second request was hidden in the first"


@pytest.mark.parametrize(
    "wire",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02",
        b"GET\r\n",
    ],
    ids=["version", "HTTP/2", "CONNECT", "TLS", "no path"],
)
def test_bytes_that_are_no_request_are_refused(door: Door, wire: bytes) -> None:
    assert statuses(door.ask(wire)) in ([400], [404], [405])


def test_http_1_0_is_answered_and_closed(door: Door) -> None:
    assert statuses(door.ask(b"GET /healthz HTTP/1.0\r\n\r\n")) == [200]


def test_an_upgrade_is_answered_as_a_request_and_closed(door: Door) -> None:
    for wanted in (b"websocket", b"h2c"):
        told = door.ask(START + b"Connection: Upgrade\r\nUpgrade: " + wanted + b"\r\n\r\n" + START + b"\r\n")
        assert statuses(told) == [200]


def test_a_client_that_expects_continue_is_told(door: Door) -> None:
    with door.connect() as knock:
        knock.sendall(
            POST
            + b"Authorization: Bearer an-admin-key-for-tests\r\n"
            + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
        )
        assert knock.recv(100).startswith(b"HTTP/1.1 100 ")
        knock.sendall(b"{")
        assert statuses(drain(knock)) == [400]
