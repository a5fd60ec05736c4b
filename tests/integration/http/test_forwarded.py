"""Whose address is counted: a trusted proxy tells it, everybody else has his own. On a real process."""

from collections.abc import Iterator

import pytest

from tests.helpers.door import Door, open_door

pytestmark = pytest.mark.integration

LIMIT = 3
ALICE, BOB = "198.51.100.1", "198.51.100.2"
ELSEWHERE = "127.0.0.2"


@pytest.fixture
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    settings = {"PUBLIC_RATE_LIMIT_PER_MINUTE": str(LIMIT)}
    with open_door(tmp_path_factory.mktemp("door"), settings, {"FORWARDED_ALLOW_IPS": "127.0.0.1"}) as opened:
        yield opened


def ask(door: Door, forwarded: str, source: str = "127.0.0.1") -> int:
    head = f"GET /docs HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {forwarded}\r\nConnection: close\r\n\r\n"
    return int(door.ask(head.encode(), source=source)[9:12])


def test_clients_behind_a_trusted_proxy_are_told_apart_and_nobody_else_is_believed(door: Door) -> None:
    for client in (ALICE, BOB, "2001:db8::1"):
        answers = [ask(door, client) for _ in range(LIMIT + 1)]
        assert answers in ([200] * LIMIT + [429], [200] * (LIMIT + 1)), "but for the end of a minute"
    assert 429 in [ask(door, f"203.0.113.{n}, {ALICE}") for n in range(2 * LIMIT + 2)], "what a client writes before it"
    assert 429 in [ask(door, f"203.0.113.{n}", ELSEWHERE) for n in range(2 * LIMIT + 2)], "who is no proxy"
