"""A node that is back with an old channel database proves nothing: on a real Postgres, with a node that is made up."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.sending.sending import Sending
from engine.clients.lnd.client import LndNode
from engine.contracts.payment import AttemptReport, LightningAttempt, NodeVerdict
from engine.domain.channel import SeenChannels
from engine.domain.ids import PaymentHash
from engine.domain.lost_attempt import release_height
from tests.fixtures.postgres import Database
from tests.helpers.payer import Payers, running_payers
from tests.helpers.sending import EMPTY, IN_FLIGHT, FakeLnd

pytestmark = pytest.mark.integration

TIME_LOCK = 400
DUE = release_height(TIME_LOCK)
CHANNELS = {"aa:0": 15, "bb:1": 7}


@pytest_asyncio.fixture
async def payers(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Payers]:
    async with running_payers(ledger_db, tmp_path) as payers:
        yield payers


async def _attempt(payers: Payers) -> LightningAttempt:
    user = await payers.api.open_account()
    await payers.fund(user, 1_000_000)
    opened = await payers.pay(user, None, 100_000, payment_hash=PaymentHash("cd" * 32))
    assert opened.attempt is not None
    return opened.attempt


async def _look(
    payers: Payers,
    attempt: LightningAttempt,
    height: int,
    channels: SeenChannels,
    closed: dict[str, bool] | None = None,
    closing: int = 0,
) -> AttemptReport | None:
    """One look at a node that has the payment in none of these; None when it goes on waiting as it did."""
    htlcs = replace(EMPTY, height=height, channels=channels, closing=closing)
    known = replace(IN_FLIGHT, time_lock=TIME_LOCK)
    lnd = FakeLnd(known=known, says=[], htlcs=htlcs, closed=closed or {}, name=attempt.node)
    sending = Sending(cast("LndNode", lnd), payers.pool)
    try:
        return cast("AttemptReport", await ActivityEnvironment().run(sending.watch_payment, attempt))
    except ApplicationError as still:
        assert still.type == "InFlight"  # noqa: PT017 - either way of saying "in flight" is right here
        return None


def _in_doubt(report: AttemptReport | None, why: str) -> None:
    assert report is not None
    assert report.waiting is not None
    assert (report.verdict, report.waiting.reason) == (NodeVerdict.IN_FLIGHT, "channels_in_doubt")
    assert report.waiting.needs_operator
    assert why in report.waiting.detail


async def test_the_proof_is_complete_on_channels_that_only_went_on(payers: Payers) -> None:
    attempt = await _attempt(payers)
    for height in (401, 405):
        await _look(payers, attempt, height, SeenChannels(updates=CHANNELS))
    report = await _look(payers, attempt, DUE, SeenChannels(updates={**CHANNELS, "aa:0": 99}))
    assert report is not None
    assert (report.verdict, report.failure_code) == (NodeVerdict.FAILED, "lost_attempt")


async def test_a_lower_number_ends_every_proof_until_the_right_data_are_back(payers: Payers) -> None:
    attempt = await _attempt(payers)
    for height in (401, 405):
        await _look(payers, attempt, height, SeenChannels(updates=CHANNELS))
    old = SeenChannels(updates={**CHANNELS, "aa:0": 14})
    for height in (DUE, DUE + 50):
        _in_doubt(await _look(payers, attempt, height, old), "channel aa:0 is at update 14, and was at 15 before")
    kept = await payers.api.database.fetch("SELECT payment_id, reason, needs_operator FROM bank.payment_waits")
    assert [tuple(row) for row in kept] == [(attempt.payment_id, "channels_in_doubt", True)]
    report = await _look(payers, attempt, DUE + 51, SeenChannels(updates=CHANNELS))
    assert report is not None
    assert report.failure_code == "lost_attempt"


@pytest.mark.parametrize(
    ("channels", "closed", "why"),
    [
        (SeenChannels(updates={"bb:1": 7}), {}, "aa:0 is gone, and was not closed"),
        (SeenChannels(updates={"bb:1": 7}), {"aa:0": True}, "aa:0 was closed by its peer"),
        (SeenChannels(), {"aa:0": False}, "bb:1 is gone"),
    ],
)
async def test_a_channel_that_is_gone_ends_every_proof(
    payers: Payers, channels: SeenChannels, closed: dict[str, bool], why: str
) -> None:
    attempt = await _attempt(payers)
    for height in (401, 405):
        await _look(payers, attempt, height, SeenChannels(updates=CHANNELS))
    for height in (DUE, DUE + 1):
        _in_doubt(await _look(payers, attempt, height, channels, closed), why)


async def test_a_node_that_says_that_it_lost_data_is_not_believed_when_the_channel_has_closed(payers: Payers) -> None:
    """Its lower number was never seen: the peer has closed the channel at once."""
    attempt = await _attempt(payers)
    for height in (401, 405):
        await _look(payers, attempt, height, SeenChannels(updates=CHANNELS))
    lost = SeenChannels(updates={"bb:1": 7}, closing={"aa:0"}, data_lost={"aa:0"})
    await _look(payers, attempt, DUE, lost, closing=1)
    after = SeenChannels(updates={"bb:1": 8})
    _in_doubt(await _look(payers, attempt, DUE + 1, after, {"aa:0": False}), "lost data of channel aa:0")


async def test_a_channel_that_its_peer_closed_long_ago_says_nothing_about_a_later_payment(payers: Payers) -> None:
    attempt = await _attempt(payers)
    await _look(payers, attempt, 401, SeenChannels(updates=CHANNELS))
    after = SeenChannels(updates={"bb:1": 8})
    for height in (402, 405):
        await _look(payers, attempt, height, after, {"aa:0": True})
    await payers.api.database.execute("UPDATE bank.payments SET created_at = clock_timestamp()")
    for height in (406, 407, DUE):
        report = await _look(payers, attempt, height, after, {"aa:0": True})
    assert report is not None
    assert report.failure_code == "lost_attempt"
