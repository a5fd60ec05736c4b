"""The client over a bad line: whatever happens to one call, it ends in time with a reason, and the next one works."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine.clients.bitcoind import connection as connections
from engine.clients.bitcoind.rpc import Rpc
from engine.domain.errors import OutcomeUnknown
from tests.fixtures.chain_line import Mode
from tests.helpers.bitcoind_client import opened, reason_of
from tests.helpers.chain import Chain

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def rpc(chain: Chain) -> AsyncIterator[Rpc]:
    """Through the line, with one thread: a call that is stuck would stop all others."""
    async with opened(chain.line.url, chain.auth_file, threads=1) as client:
        assert await client.call("getblockcount") == chain.height()
        yield client


async def met(chain: Chain) -> None:
    """Until a request has met the bad line."""
    async with asyncio.timeout(20):
        while not chain.line.hits:
            await asyncio.sleep(0.01)


REASONS: list[tuple[Mode, str]] = [
    ("503", "busy"),
    ("401", "refused"),
    ("garbage", "refused"),
    ("cut", "cut_off"),
    ("lost", "cut_off"),
    ("silent", "timed_out"),
    ("trickle", "timed_out"),
    ("delay", "timed_out"),
    ("refuse", "unreachable"),
]


@pytest.mark.parametrize(("mode", "reason"), REASONS)
async def test_a_call_ends_with_a_reason_and_the_next_one_works(
    chain: Chain, rpc: Rpc, mode: Mode, reason: str
) -> None:
    limit_s = 0.3 if reason == "timed_out" else 30
    chain.line.pause_s = 0.05
    chain.line.mode = mode
    assert await reason_of(rpc.call("getblockcount", timeout_s=limit_s)) == reason
    assert await reason_of(rpc.batch([("getblockcount", ())], timeout_s=limit_s)) == reason
    chain.line.mode = "pass"
    assert await rpc.call("getblockcount") == chain.height()
    assert await rpc.batch([("getblockcount", ())]) == [chain.height()]


@pytest.mark.parametrize("mode", ["cut", "lost"])
async def test_a_broken_call_is_repeated_once(chain: Chain, rpc: Rpc, mode: Mode) -> None:
    chain.line.mode = mode
    assert await reason_of(rpc.call("getblockcount")) == "cut_off"
    assert chain.line.hits == 2


@pytest.mark.parametrize("mode", ["503", "401", "garbage", "silent"])
async def test_a_refused_or_unanswered_call_is_not_repeated(chain: Chain, rpc: Rpc, mode: Mode) -> None:
    chain.line.mode = mode
    await reason_of(rpc.call("getblockcount", timeout_s=1))
    assert chain.line.hits <= 1


@pytest.mark.parametrize("mode", ["cut", "lost", "silent", "trickle", "delay"])
async def test_the_outcome_of_a_call_that_must_not_be_repeated_is_unknown(chain: Chain, rpc: Rpc, mode: Mode) -> None:
    chain.line.pause_s = 0.5
    chain.line.mode = mode
    with pytest.raises(OutcomeUnknown):
        await rpc.call("getblockcount", timeout_s=2, repeat=False)
    assert chain.line.hits == 1


@pytest.mark.parametrize("mode", ["503", "401", "garbage"])
async def test_a_refused_call_has_not_happened(chain: Chain, rpc: Rpc, mode: Mode) -> None:
    chain.line.mode = mode
    await reason_of(rpc.call("getblockcount", repeat=False))


async def test_a_slow_answer_within_the_limit_is_an_answer(chain: Chain, rpc: Rpc) -> None:
    chain.line.mode, chain.line.delay_s, chain.line.pause_s = "delay", 0.3, 0.001
    assert await rpc.call("getblockcount") == chain.height()
    chain.line.mode = "trickle"
    assert await rpc.call("getblockcount") == chain.height()


async def test_a_cancelled_call_frees_its_thread(chain: Chain, rpc: Rpc) -> None:
    chain.line.mode = "silent"
    call = asyncio.create_task(rpc.call("getblockcount", timeout_s=3600))
    await met(chain)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    chain.line.methods = {"nothing"}
    assert await rpc.call("getblockcount") == chain.height()


async def test_a_call_that_waits_for_a_thread_ends_in_time(chain: Chain, rpc: Rpc) -> None:
    chain.line.mode = "silent"
    first = asyncio.create_task(rpc.call("getblockcount", timeout_s=3600))
    await met(chain)
    assert await reason_of(rpc.call("getblockcount", timeout_s=0.2, repeat=False)) == "timed_out"
    assert chain.line.hits == 1
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_closing_ends_calls(chain: Chain) -> None:
    rpc = Rpc(chain.line.url, chain.auth_file)
    chain.line.mode = "silent"
    call = asyncio.create_task(reason_of(rpc.call("getblockcount", timeout_s=3600)))
    await met(chain)
    await rpc.close()
    assert await call == "cut_off"
    await rpc.close()


async def test_too_large_an_answer_is_not_read(chain: Chain, rpc: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_ANSWER_BYTES", 200)
    assert await reason_of(rpc.call("getblockchaininfo")) == "cut_off"
    assert await rpc.call("getblockcount") == chain.height()


async def test_no_error_tells_the_credentials(chain: Chain) -> None:
    user, password = chain.auth_file.read_text().split(":")
    url = chain.line.url.replace("://", f"://{user}:{password}@")
    async with opened(url) as rpc:
        assert await rpc.call("getblockcount") == chain.height()
        for mode, _ in REASONS:
            chain.line.mode = mode
            with pytest.raises(Exception) as raised:  # noqa: PT011 - whichever it is
                await rpc.call("getblockcount", timeout_s=0.5)
            told = [repr(raised.value), str(raised.value), repr(vars(raised.value)), repr(raised.value.__context__)]
            assert not [text for text in told if password in text]
        assert password not in repr(rpc)
