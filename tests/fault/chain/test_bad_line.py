"""Bad lines to bitcoind, and refused credentials: nothing is lost, operators read the reason, and it ends by itself."""

import asyncio
import secrets

import pytest

from tests.fixtures.chain_line import Mode
from tests.fixtures.hot_bank import HotBank

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("503", "busy"),
        ("401", "refused"),
        ("cut", "cut_off"),
        ("lost", "cut_off"),
        ("garbage", "refused"),
        ("refuse", "unreachable"),
        ("silent", "timed_out"),
        ("trickle", "timed_out"),
    ],
)
async def test_a_bad_line_loses_nothing(hot: HotBank, mode: Mode, reason: str) -> None:
    """A deposit that waits, one that nobody has seen, and a reorganisation: all while the line is bad."""
    waiting, unseen, taken = [await hot.user() for _ in range(3)]
    addresses = [await hot.address(user) for user in (unseen, waiting)]
    sent = await hot.pay(taken, 50_000)
    await hot.mine()
    await hot.shows(taken, "credited", 50_000)
    await asyncio.to_thread(hot.chain.pay, addresses[1], 60_000)
    await hot.shows(waiting, "pending", incoming=60_000)
    hot.chain.line.mode = mode
    await asyncio.to_thread(hot.chain.pay, addresses[0], 70_000)
    conflict = await asyncio.to_thread(hot.chain.double_spend, sent)
    await asyncio.to_thread(lambda: hot.chain.reorg(1, with_=[conflict]))
    await hot.mine()
    await hot.problem(reason)
    await hot.shows(taken, "credited", 50_000)
    assert await hot.rows(unseen) == []
    hot.chain.line.mode = "pass"
    await hot.shows(taken, "reversed")
    await hot.shows(waiting, "credited", 60_000)
    await hot.shows(unseen, "credited", 70_000)
    await hot.problem(None)


@pytest.mark.parametrize("mode", ["trickle", "delay"])
async def test_a_slow_line_is_only_slow(hot: HotBank, mode: Mode) -> None:
    """Each call of a few kinds takes its time, within the limit of a call."""
    alice = await hot.user()
    address = await hot.address(alice)
    hot.chain.line.methods, hot.chain.line.delay_s, hot.chain.line.pause_s = {"listsinceblock"}, 0.5, 0.0001
    hot.chain.line.mode = mode
    await asyncio.to_thread(hot.chain.pay, address, 50_000)
    await hot.shows(alice, "pending", incoming=50_000)
    await hot.mine()
    await hot.shows(alice, "credited", 50_000)
    assert hot.chain.line.hits > 0


async def test_a_call_that_fails_in_the_middle_of_a_look(hot: HotBank) -> None:
    """Each kind of call by itself: what was read until then is thrown away, and read again."""
    for method in ("listsinceblock", "gettransaction", "getmempoolentry"):
        alice = await hot.user()
        address = await hot.address(alice)
        hot.chain.line.methods, hot.chain.line.mode = {method}, "503"
        await asyncio.to_thread(hot.chain.pay, address, 50_000)
        await hot.problem("busy")
        hot.chain.line.mode = "pass"
        await hot.shows(alice, "pending", incoming=50_000)
        await hot.mine()
        await hot.shows(alice, "credited", 50_000)


async def test_the_password_is_changed_and_the_file_later(hot: HotBank) -> None:
    """bitcoind has new credentials since its restart, and the worker's file the old ones for a while."""
    alice = await hot.user()
    address = await hot.address(alice)
    hot.chain.node.change_password()
    await asyncio.to_thread(hot.chain.restart)
    await asyncio.to_thread(hot.chain.pay, address, 50_000)
    await hot.mine()
    await hot.problem("refused")
    await asyncio.to_thread(hot.auth_file.write_text, f"millrace:{secrets.token_hex(8)}")
    await hot.reported_anew()
    await hot.problem("refused")
    assert await hot.rows(alice) == []
    await asyncio.to_thread(lambda: hot.auth_file.write_text(hot.chain.auth_file.read_text()))
    await hot.shows(alice, "credited", 50_000)
    await hot.problem(None)


async def test_a_wallet_that_is_not_loaded_is_loaded(hot: HotBank) -> None:
    """bitcoind has forgotten to load it at its start."""
    alice = await hot.user()
    address = await hot.address(alice)
    await asyncio.to_thread(hot.chain.call, "unloadwallet", "hot", False)
    await asyncio.to_thread(hot.chain.restart)
    await asyncio.to_thread(hot.chain.pay, address, 50_000)
    await hot.mine()
    await hot.shows(alice, "credited", 50_000)
