"""The client and a real bitcoind that restarts, closes connections, changes its cookie, refuses and is overloaded."""

import asyncio
import hashlib
import hmac
import http.client
import logging
import secrets
from collections.abc import Awaitable
from urllib.parse import quote

import pytest

from engine.clients.bitcoind.rpc import Rpc, RpcFault
from engine.domain.errors import EngineError, Unavailable
from tests.helpers.bitcoind_client import opened, reason_of, succeeds
from tests.helpers.chain import Chain

pytestmark = pytest.mark.integration

ODD_PASSWORD = "p@ss:w/rd %41ü#?"


def odd_user(*more: str) -> list[str]:
    """Flags for a second user, whose password needs percent-encoding."""
    salt = secrets.token_hex(16)
    digest = hmac.new(salt.encode(), ODD_PASSWORD.encode(), hashlib.sha256).hexdigest()
    return [f"-rpcauth=odd:{salt}${digest}", *more]


def as_odd_user(chain: Chain) -> str:
    return chain.url.replace("://", f"://odd:{quote(ODD_PASSWORD, safe='')}@")


async def header_at(rpc: Rpc, height: int) -> int:
    """Two calls, whose answers belong together."""
    found = await rpc.call("getblockheader", await rpc.call("getblockhash", height))
    return int(found["height"])


async def test_eight_threads_never_mix_answers_up(chain: Chain) -> None:
    heights = [number % 100 for number in range(1000)]
    async with opened(chain.url, chain.auth_file) as rpc:
        assert await asyncio.gather(*(header_at(rpc, height) for height in heights)) == heights
        batches = await asyncio.gather(*(rpc.batch([("getblockhash", (height,))] * 3) for height in heights[:100]))
        assert batches == [[chain.call("getblockhash", height)] * 3 for height in heights[:100]]


async def test_a_batch_tells_each_call_its_own_end(chain: Chain) -> None:
    async with opened(chain.url, chain.auth_file) as rpc:
        calls = [("getblockcount", ()), ("getblockhash", (10**9,)), ("nosuchmethod", ()), ("getblockcount", ())]
        first, second, third, fourth = await rpc.batch(calls)
        assert (first, fourth) == (chain.height(), chain.height())
        assert (second.code, third.code) == (-8, -32601)


async def test_an_error_of_bitcoind_leaves_the_connection_open(chain: Chain) -> None:
    async with opened(chain.url, chain.auth_file, threads=1) as rpc:
        with pytest.raises(RpcFault, match="Block height out of range") as raised:
            await rpc.call("getblockhash", 10**9, repeat=False)
        assert raised.value.code == -8
        connected = rpc._connections[0].sock
        assert await rpc.call("getblockcount", repeat=False) == chain.height()
        assert rpc._connections[0].sock is connected


async def test_calls_go_on_after_a_restart_in_their_midst(chain: Chain) -> None:
    height, ended, reasons = chain.height(), asyncio.Event(), set[str]()

    async def go_on(rpc: Rpc) -> None:
        while not ended.is_set():
            try:
                assert await rpc.call("getblockcount") == height
            except Unavailable as error:
                reasons.add(str(error.fields["reason"]))

    async with opened(chain.url, chain.auth_file) as rpc:
        callers = [asyncio.create_task(go_on(rpc)) for _ in range(8)]
        await asyncio.to_thread(chain.restart)
        assert await succeeds(rpc) == height
        ended.set()
        await asyncio.gather(*callers)
    assert reasons <= {"unreachable", "cut_off", "warming_up", "busy"}


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_call_that_must_not_be_repeated_finds_the_restarted_node(chain: Chain, how: str) -> None:
    """Every thread's connection is broken by then, and each sees that before it sends."""
    async with opened(chain.url, chain.auth_file) as rpc:
        await asyncio.gather(*(rpc.call("getblockcount") for _ in range(50)))
        chain.stop() if how == "stop" else chain.kill()
        assert await reason_of(rpc.call("getblockcount", repeat=False)) == "unreachable"
        chain.start()
        counts = await asyncio.gather(*(rpc.call("getblockcount", repeat=False) for _ in range(50)))
        assert set(counts) == {chain.height()}


async def test_a_connection_that_was_idle_for_too_long_is_made_anew(chain: Chain) -> None:
    chain.restart("-rpcservertimeout=1")
    async with opened(chain.url, chain.auth_file, threads=1) as rpc:
        await rpc.call("getblockcount")
        closed = rpc._connections[0].sock
        await asyncio.to_thread(closed.recv, 1)  # ends when bitcoind closes the connection
        assert await rpc.call("getblockcount", repeat=False) == chain.height()
        assert rpc._connections[0].sock is not closed


async def test_the_cookie_of_the_next_start_is_read(chain: Chain) -> None:
    async with opened(chain.url, chain.node.cookie_file) as rpc:
        assert await rpc.call("getblockcount", repeat=False) == chain.height()
        old = chain.node.cookie_file.read_text()
        chain.restart()
        assert chain.node.cookie_file.read_text() != old
        assert await rpc.call("getblockcount", repeat=False) == chain.height()
        chain.node.cookie_file.rename(chain.node.folder / "cookie")  # the connection is accepted without it
        assert await rpc.call("getblockcount") == chain.height()
        chain.stop()
        assert await reason_of(rpc.call("getblockcount")) == "unreachable"


async def test_a_new_password_in_the_file_is_read(chain: Chain) -> None:
    async with opened(chain.url, chain.auth_file) as rpc:
        await rpc.call("getblockcount")
        chain.node.change_password()
        chain.restart()
        assert await rpc.call("getblockcount", repeat=False) == chain.height()


async def test_a_wrong_password_is_a_refusal(chain: Chain) -> None:
    async with opened(chain.url.replace("://", "://millrace:wrong-secret@")) as rpc:
        with pytest.raises(Unavailable, match="401") as raised:
            await rpc.call("getblockcount")
        assert raised.value.fields["reason"] == "refused"
        assert "wrong-secret" not in str(raised.value)


async def test_a_percent_encoded_password_opens_the_node(chain: Chain) -> None:
    chain.restart(*odd_user())
    async with opened(as_odd_user(chain)) as rpc:
        assert await rpc.call("getblockcount") == chain.height()
        assert await rpc.batch([("getblockcount", ())]) == [chain.height()]


async def test_a_call_that_is_not_allowed_is_a_refusal(chain: Chain) -> None:
    chain.restart(*odd_user("-rpcwhitelist=odd:getblockcount", "-rpcwhitelistdefault=0"))
    async with opened(as_odd_user(chain)) as rpc:
        assert await rpc.call("getblockcount") == chain.height()
        assert await reason_of(rpc.call("getbestblockhash")) == "refused"
        assert await rpc.call("getblockcount") == chain.height()


async def test_an_overloaded_node_is_busy(chain: Chain) -> None:
    chain.restart("-rpcthreads=1", "-rpcworkqueue=1")
    async with opened(chain.url, chain.auth_file) as rpc:
        waiting = [reason_or_none(rpc.call("waitfornewblock", 500)) for _ in range(8)]
        reasons = await asyncio.gather(*waiting)
        assert set(reasons) == {"busy", None}
        assert await succeeds(rpc) == chain.height()


async def reason_or_none(call: Awaitable[object]) -> str | None:
    try:
        await call
    except Unavailable as error:
        return str(error.fields["reason"])
    return None


async def test_a_starting_node_is_never_unforeseen(chain: Chain) -> None:
    """It does not listen at first, then warms up, then serves."""
    async with opened(chain.url, chain.auth_file) as rpc:
        chain.kill()
        starting = asyncio.create_task(asyncio.to_thread(chain.start))
        assert await succeeds(rpc) == await rpc.call("getblockcount")
        await starting


async def test_no_log_at_any_level_shows_a_secret(
    chain: Chain, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="BitcoinRPC")
    _, password = chain.auth_file.read_text().split(":")
    passphrase = "correct horse battery staple"
    async with opened(chain.url, chain.auth_file) as rpc:
        await rpc.call("createwallet", "locked", False, False, passphrase)
        await rpc.call("walletpassphrase", passphrase, 1, wallet="locked")
        await rpc.batch([("walletpassphrase", (passphrase, 1))], wallet="locked")
        with pytest.raises(RpcFault) as raised:
            await rpc.call("walletpassphrase", passphrase, "no number", wallet="locked")
        with pytest.raises(EngineError) as refused:
            await rpc.call("walletpassphrase", passphrase, 1, wallet="nosuch")
        await rpc.call("unloadwallet", "locked")
    out, err = capsys.readouterr()
    texts = [caplog.text, out, err, str(raised.value), repr(raised.value), str(refused.value), repr(rpc)]
    assert not [text for text in texts if passphrase in text or password in text]
