"""How each kind of outside effect is repeated, named by what it touches. Every call in a workflow names one of these.

Nothing here gives up but RECONCILE, TIDY, GLANCE and PROBE, on which no money depends, and LEDGER, after which BOOKS
goes on: what is held or owed waits until the part that is away has come back. Time-outs only end one try. What makes a
repeat safe stands with each activity.
"""

from datetime import timedelta
from typing import TypedDict

from temporalio.common import RetryPolicy


class LocalPolicy(TypedDict):
    """How a local activity is repeated."""

    schedule_to_close_timeout: timedelta
    start_to_close_timeout: timedelta
    local_retry_threshold: timedelta
    retry_policy: RetryPolicy


class Policy(TypedDict):
    """How an activity is repeated. The queue is no part of it: the caller knows whose effect it is."""

    start_to_close_timeout: timedelta
    heartbeat_timeout: timedelta | None
    retry_policy: RetryPolicy


class BriefPolicy(TypedDict):
    """How an activity is tried that somebody waits for, and when that ends for good."""

    schedule_to_close_timeout: timedelta
    retry_policy: RetryPolicy


LEDGER = LocalPolicy(
    schedule_to_close_timeout=timedelta(seconds=15),
    start_to_close_timeout=timedelta(seconds=10),
    local_retry_threshold=timedelta(seconds=10),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(milliseconds=100),
        backoff_coefficient=2,
        maximum_interval=timedelta(seconds=1),
        maximum_attempts=4,
    ),
)
"""One short transaction in Postgres, tried a few times within the workflow task. A longer task writes three events
every four seconds. An opening may also wait for a node, for some four seconds after its commit."""

BOOKS = Policy(
    start_to_close_timeout=timedelta(seconds=20),
    heartbeat_timeout=None,
    retry_policy=RetryPolicy(
        initial_interval=timedelta(milliseconds=500), backoff_coefficient=1.5, maximum_interval=timedelta(seconds=10)
    ),
)
"""The same transaction while Postgres is away. Temporal repeats it, for ever, and writes no event until it is done."""

MOVE_MONEY = Policy(
    start_to_close_timeout=timedelta(minutes=2),
    heartbeat_timeout=timedelta(seconds=6),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(milliseconds=200), backoff_coefficient=2, maximum_interval=timedelta(seconds=3)
    ),
)
"""A send over a node: looks first, sends behind the fence, follows for a while."""

WATCH = Policy(
    start_to_close_timeout=timedelta(minutes=5),
    heartbeat_timeout=timedelta(seconds=10),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(seconds=1), backoff_coefficient=2, maximum_interval=timedelta(seconds=15)
    ),
)
"""A look at something that may take days. It chooses its own delays (`next_retry_delay`), which add no history; these
here are for a node that does not answer, whose return nobody may announce. A look may take as long as all of its calls
together. A lost worker is noticed by its heartbeats."""

NODE = Policy(
    start_to_close_timeout=timedelta(seconds=60),
    heartbeat_timeout=None,
    retry_policy=RetryPolicy(
        initial_interval=timedelta(milliseconds=500), backoff_coefficient=2, maximum_interval=timedelta(seconds=10)
    ),
)
"""A read of a node."""

GLANCE = BriefPolicy(
    schedule_to_close_timeout=timedelta(seconds=6),
    retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_attempts=3),
)
"""A read of a node for somebody who waits: an answer at once, or none."""

PROBE = BriefPolicy(schedule_to_close_timeout=timedelta(seconds=10), retry_policy=RetryPolicy(maximum_attempts=1))
"""An HTLC that moves no money. Once: a second would be another one."""

RECONCILE = Policy(
    start_to_close_timeout=timedelta(minutes=10),
    heartbeat_timeout=timedelta(seconds=30),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(seconds=1),
        backoff_coefficient=2,
        maximum_interval=timedelta(seconds=30),
        maximum_attempts=6,
    ),
)
"""A read of a whole place. What could not be read is reported, and read again within the hour."""

TIDY: Policy = {**RECONCILE, "heartbeat_timeout": timedelta(seconds=10)}
"""A walk over all rows that wait, as patient as the read of a place. A lost worker is noticed sooner, because the next
walk comes within a minute."""

PUMP = Policy(
    start_to_close_timeout=timedelta(hours=8),
    heartbeat_timeout=timedelta(seconds=6),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(milliseconds=200), backoff_coefficient=1.5, maximum_interval=timedelta(seconds=2)
    ),
)
"""A stream that is followed for hours."""
