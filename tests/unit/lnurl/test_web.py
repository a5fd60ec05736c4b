"""The guard of the way out: which addresses are asked, and how. Names and the network are made up here."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from engine.clients.lnurl import web as module
from engine.clients.lnurl.guard import is_public
from engine.clients.lnurl.web import MAX_BYTES, Web
from engine.domain.errors import Invalid, Unavailable

pytestmark = pytest.mark.unit

PUBLIC = "93.184.215.14"
NAMES = {
    "good.example": [PUBLIC],
    "other.example": ["2606:2800:21f:cb07:6820:80da:af6b:8b2c"],
    "inside.example": ["10.0.0.7"],
    "both.example": [PUBLIC, "127.0.0.1"],
    "mapped.example": ["::ffff:192.168.1.1"],
    "localhost": ["127.0.0.1"],
    "2130706433": ["127.0.0.1"],
    "0x7f.1": ["127.0.0.1"],
}

Handler = Callable[[httpx.Request], httpx.Response]


def json_answer(_request: httpx.Request) -> httpx.Response:
    return answered(b'{"tag": "payRequest"}')


def answered(body: bytes) -> httpx.Response:
    return httpx.Response(200, stream=httpx.ByteStream(body))


def resolve(host: str, port: int, **_: Any) -> list[Any]:
    addresses = NAMES.get(host)
    if addresses is None:
        try:
            socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
        except OSError:
            raise socket.gaierror(socket.EAI_NONAME, "unknown") from None
        addresses = [host]
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]


@pytest_asyncio.fixture
async def web(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Web]:
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    guarded = Web(guarded=True)
    yield guarded
    await guarded.close()


async def ask(web: Web, url: str, handler: Handler = json_answer) -> list[httpx.Request]:
    """What reached the network."""
    seen: list[httpx.Request] = []

    def heard(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return handler(request)

    web._transport = httpx.MockTransport(heard)  # type: ignore[assignment]
    try:
        await web.ask(url, {"amount": "5"})
    except (Invalid, Unavailable) as error:
        error.add_note(str(len(seen)))
        raise
    return seen


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e"),
        *("::ffff:8.8.8.8", "64:ff9b::8.8.8.8"),
    ],
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.255.254", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255"),
        *("192.168.0.1", "169.254.169.254", "100.64.0.1", "100.127.255.255", "224.0.0.1", "239.255.255.250"),
        *("240.0.0.1", "255.255.255.255", "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "192.0.0.1"),
        *(
            "::",
            str(ipaddress.IPv4Address(0)),
            "::1",
            "::8.8.8.8",
            "::127.0.0.1",
            "fe80::1",
            "fe80::1%eth0",
            "fec0::1",
            "fc00::1",
            "fd12:3456::1",
        ),
        *("ff02::1", "2001:db8::1", "2001::1", "2002:7f00:1::", "2002:808:808::", "100::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:100.64.0.1", "::ffff:224.0.0.1"),
        *("64:ff9b::127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::1", "", "localhost", "1.2.3", "1.2.3.4.5"),
    ],
)
def test_all_other_addresses(address: str) -> None:
    assert not is_public(address)


async def test_the_address_that_was_checked_is_the_one_that_is_asked(web: Web) -> None:
    (asked,) = await ask(web, "https://good.example:8443/a/b?x=1#y")
    assert str(asked.url) == f"https://{PUBLIC}:8443/a/b?x=1&amount=5"
    assert asked.headers["host"] == "good.example:8443"
    assert asked.extensions["sni_hostname"] == "good.example"
    (asked,) = await ask(web, "https://OTHER.example/")
    assert asked.url.host == "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
    assert "cookie" not in asked.headers


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://good.example/",
            "ftp://good.example/",
            "file:///etc/passwd",
            "gopher://good.example/",
            "good.example",
        ),
        *(
            "https://user:word@good.example/",
            "https:///",
            "https://",
            "",
            "https://good.example:99999/",
            "https://[::1",
        ),
        *("https://inside.example/", "https://both.example/", "https://mapped.example/", "https://localhost/"),
        *("https://127.0.0.1/", "https://[::1]/", "https://2130706433/", "https://0x7f.1/", "https://169.254.169.254/"),
        *("https://[::ffff:10.0.0.1]/", "https://[fe80::1]/", "https://100.64.0.1/", "//good.example/", "\n"),
        "https://good.example/" + "x" * 2_000,
    ],
)
async def test_a_forbidden_address_is_not_asked(web: Web, url: str) -> None:
    with pytest.raises(Invalid) as refused:
        await ask(web, url)
    assert refused.value.code == "invalid_destination"
    assert refused.value.__notes__ == ["0"]


async def test_a_name_that_nobody_has_and_an_onion_are_away(web: Web) -> None:
    for url in ("https://nobody.example/", "https://abcdefghijklmnop.onion/"):
        with pytest.raises(Unavailable) as away:
            await ask(web, url)
        assert away.value.code == "destination_unavailable"


async def test_redirects_are_followed_twice_and_checked_each_time(web: Web) -> None:
    def chain(request: httpx.Request) -> httpx.Response:
        to = {"/": "/b", "/b": "https://other.example/c"}.get(request.url.path)
        return httpx.Response(302, headers={"location": to}) if to else json_answer(request)

    asked = await ask(web, "https://good.example/", chain)
    assert [request.headers["host"] for request in asked] == ["good.example", "good.example", "other.example"]


@pytest.mark.parametrize(
    "location",
    [
        *(
            "http://good.example/",
            "https://127.0.0.1/",
            "https://inside.example/",
            "https://[::1]/",
            "file:///etc/passwd",
        ),
        *("//localhost/x", "http://169.254.169.254/latest/meta-data", "https://both.example"),
    ],
)
async def test_a_redirect_to_where_nobody_may_go_is_not_followed(web: Web, location: str) -> None:
    with pytest.raises(Invalid) as refused:
        await ask(web, "https://good.example/", lambda _: httpx.Response(302, headers={"location": location}))
    assert refused.value.__notes__ == ["1"]


async def test_a_circle_of_redirects_ends(web: Web) -> None:
    with pytest.raises(Unavailable, match="redirects") as away:
        await ask(web, "https://good.example/", lambda _: httpx.Response(302, headers={"location": "/"}))
    assert away.value.__notes__ == ["3"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"7",
        b"null",
        b"\xff",
        b'{"a":1',
        b"[" * 50_000,
        b'{"a":"\\ud800"}',
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":' * 40 + b"1" + b"}" * 40,
        b" " * MAX_BYTES + b"{}",
    ],
)
async def test_an_answer_that_is_no_json_object_is_none(web: Web, body: bytes) -> None:
    with pytest.raises(Unavailable) as away:
        await ask(web, "https://good.example/", lambda _: answered(body))
    assert away.value.code == "destination_unavailable"


async def test_a_slow_name_ends_in_time(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT_S", 0.05)

    async def never(*_: Any) -> str:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(web, "_resolve", never)
    with pytest.raises(Unavailable, match="no answer within"):
        await ask(web, "https://good.example/")
