"""How each kind of outside effect is repeated, named by what it touches. Every call in a workflow names one of these.

Only RECONCILE, TIDY, GLANCE and PROBE give up, on which no money depends, and LEDGER, after which BOOKS goes on. All
others repeat until the part that is away has come back. Their time-outs only end one try. Each activity says what makes
its repeat safe.
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
    """How an activity is repeated. The queue is not part of it: the caller names it."""

    start_to_close_timeout: timedelta
    heartbeat_timeout: timedelta | None
    retry_policy: RetryPolicy


class BriefPolicy(TypedDict):
    """How an activity is tried while a caller waits, and when it ends for good."""

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
every four seconds. An opening may also wait for a node for up to four seconds after its commit."""

BOOKS = Policy(
    start_to_close_timeout=timedelta(seconds=20),
    heartbeat_timeout=None,
    retry_policy=RetryPolicy(
        initial_interval=timedelta(milliseconds=500), backoff_coefficient=1.5, maximum_interval=timedelta(seconds=10)
    ),
)
"""The same transaction while Postgres is away. Temporal repeats it without end and writes no event until it is done."""

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
"""A look at something that may take days. The look chooses its own delays (`next_retry_delay`), which add no history.
The intervals here are for a node that does not answer, because nobody may announce its return. A look may take as long
as all of its calls together. Missing heartbeats reveal a lost worker."""

NODE = Policy(
    start_to_close_timeout=timedelta(seconds=60),
    heartbeat_timeout=None,
    retry_policy=RetryPolicy(
        initial_interval=timedelta(milliseconds=500), backoff_coefficient=2, maximum_interval=timedelta(seconds=10)
    ),
)
"""A read of a node."""

SPEND = Policy(
    start_to_close_timeout=timedelta(minutes=5),
    heartbeat_timeout=timedelta(seconds=6),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(milliseconds=500), backoff_coefficient=2, maximum_interval=timedelta(seconds=10)
    ),
)
"""A step of a payout: a wallet may take minutes to sign. Missing heartbeats reveal a lost worker."""

GLANCE = BriefPolicy(
    schedule_to_close_timeout=timedelta(seconds=6),
    retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_attempts=3),
)
"""A read of a node while a caller waits: a quick answer, or none."""

PROBE = BriefPolicy(schedule_to_close_timeout=timedelta(seconds=10), retry_policy=RetryPolicy(maximum_attempts=1))
"""An HTLC that moves no money. Tried once: a repeat would be another HTLC."""

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
"""A read of a whole node or of the books. The run reports what could not be read; the next run reads it again."""

TIDY: Policy = {**RECONCILE, "heartbeat_timeout": timedelta(seconds=10)}
"""A walk over all rows that wait, retried like RECONCILE. A lost worker is noticed sooner, because the next walk comes
within a minute."""

PUMP = Policy(
    start_to_close_timeout=timedelta(hours=8),
    heartbeat_timeout=timedelta(seconds=6),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(milliseconds=200), backoff_coefficient=1.5, maximum_interval=timedelta(seconds=2)
    ),
)
"""Following a stream for hours."""
