"""bitcoind's announcements wake the client, and nothing that happens to the publisher breaks it."""

import asyncio

import pytest
import zmq

from engine.clients.bitcoind.wakeup import Wakeup
from tests.helpers.chain import Chain

pytestmark = pytest.mark.integration

LONG_S, SHORT_S = 60, 0.05


async def subscribed(wakeup: Wakeup, chain: Chain) -> None:
    """Mine until the first announcement: a subscription takes effect a moment after it was made."""
    async with asyncio.timeout(LONG_S):
        while not await wakeup.wait(SHORT_S):
            await asyncio.to_thread(chain.mine)
    await silence(wakeup)


async def silence(wakeup: Wakeup) -> None:
    """Until nothing more comes."""
    async with asyncio.timeout(LONG_S):
        while await wakeup.wait(0.3):
            pass


async def test_a_block_and_a_payment_wake(chain: Chain) -> None:
    async with Wakeup(chain.zmq) as wakeup:
        await subscribed(wakeup, chain)
        waiting = asyncio.create_task(wakeup.wait(LONG_S))
        await asyncio.to_thread(chain.mine)
        assert await waiting
        await silence(wakeup)
        waiting = asyncio.create_task(wakeup.wait(LONG_S))
        await asyncio.to_thread(chain.pay, chain.address(), 50_000)
        assert await waiting
        await silence(wakeup)
        assert not await wakeup.wait(SHORT_S)


async def test_announcements_between_two_waits_wake_once(chain: Chain) -> None:
    async with Wakeup(chain.zmq) as wakeup:
        await subscribed(wakeup, chain)
        await asyncio.to_thread(chain.mine, 30)
        assert await wakeup.wait(LONG_S)
        await silence(wakeup)
        assert not await wakeup.wait(SHORT_S)


async def test_a_restarted_publisher_is_heard_again(chain: Chain) -> None:
    async with Wakeup(chain.zmq) as wakeup:
        await subscribed(wakeup, chain)
        chain.kill()
        assert not await wakeup.wait(SHORT_S)
        await asyncio.to_thread(chain.start)
        await subscribed(wakeup, chain)


async def test_a_publisher_that_never_was_is_waited_for_in_vain() -> None:
    async with Wakeup("tcp://127.0.0.1:1") as wakeup:
        assert not await wakeup.wait(SHORT_S)


async def test_a_wait_without_a_publisher_only_waits() -> None:
    async with Wakeup(None) as wakeup:
        assert not await wakeup.wait(SHORT_S)


async def test_a_wait_may_be_cancelled(chain: Chain) -> None:
    async with Wakeup(chain.zmq) as wakeup:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SHORT_S):
                await wakeup.wait(LONG_S)
        await subscribed(wakeup, chain)


async def test_a_url_without_meaning_is_refused() -> None:
    with pytest.raises(zmq.ZMQError):
        async with Wakeup("http://127.0.0.1"):
            pass
