"""A look at a payment may take as long as all of its calls together: it is not ended before them, and begun anew."""

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from activities.sending import sending, wait_note
from engine.clients.lnd import client as lnd
from engine.clients.lnd import htlc, untried
from engine.ledger import database
from workflows.policies import WATCH

pytestmark = pytest.mark.unit

_OPEN_POOL = inspect.signature(database.open_pool).parameters
STATEMENT_S = int(_OPEN_POOL["command_timeout_s"].default)
CONNECTION_S = database._ACQUIRE_S


def calls_s(method: Callable[..., Any]) -> int:
    """The time-outs of all calls that a method of a client makes, one after the other."""
    return lnd._CALL_TIMEOUT_S * inspect.getsource(method).count("timeout=_CALL_TIMEOUT_S")


def longest_look_s() -> int:
    """Everything that `watch_payment` may wait for, as it stands there."""
    look = inspect.getsource(sending.Sending.watch_payment)
    steps = {
        "self._find(": lnd._CALL_TIMEOUT_S,
        "sighting.read_channels(": calls_s(htlc.read_htlcs)
        + calls_s(htlc.read_closed)
        + 2 * CONNECTION_S
        + 4 * STATEMENT_S,
        "self._end_untried(": calls_s(untried.end_untried),
        "sighting.sight(": CONNECTION_S + 2 * STATEMENT_S,
        "self._notes.note(": wait_note.LIMIT_S + STATEMENT_S,
    }
    report = calls_s(lnd.LndNode.has_route_above)  # once: whatever is reported ends the look
    return report + sum(limit_s * look.count(step) for step, limit_s in steps.items())


def test_the_calls_of_a_look_are_all_counted() -> None:
    assert calls_s(htlc.read_htlcs) == 3 * lnd._CALL_TIMEOUT_S
    assert calls_s(htlc.read_closed) == lnd._CALL_TIMEOUT_S
    assert longest_look_s() > 200


def test_a_look_has_more_time_than_its_calls() -> None:
    assert WATCH["start_to_close_timeout"] > timedelta(seconds=longest_look_s() + STATEMENT_S)


def test_a_look_whose_worker_is_gone_is_noticed_long_before() -> None:
    heartbeat = WATCH["heartbeat_timeout"]
    assert heartbeat is not None
    assert heartbeat <= timedelta(seconds=10)
    assert "heartbeats()" in inspect.getsource(sending.Sending.watch_payment)
