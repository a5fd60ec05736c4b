"""How a workflow waits for a step, for a second or for a year. Temporal ends a history at some 50,000 events, and a
payment with it. So a wait adds no events.

    tried within the workflow task    a few times, which is enough on a normal day
    tried by the server               the same activity while a part is away; a retry is no event
    an operator, and a pause          the step fails for good, or in a way that nobody foresaw
    a new run                         when Temporal says that the history has grown long, with all that is known

A step that fails for good moves no money and releases none. The workflow's details and `NeedsOperator` tell operators
what is wrong, and the workflow goes on when it has been fixed. The pauses grow to half an hour.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, is_cancelled_exception

from workflows.policies import BOOKS, LEDGER

with workflow.unsafe.imports_passed_through():
    from engine.contracts import search_attributes, update_failure
    from engine.domain.errors import OutcomeUnknown, Unavailable

A = TypeVar("A")
T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(minutes=1), timedelta(minutes=30)
_AWAY = (Unavailable.__name__, OutcomeUnknown.__name__)
"""The types of failures that end when the part that was away is back (`activities/failures.py`)."""
_AT_ONCE = 64
"""How many children one workflow task starts. Their inputs stay far below the 4 MB that a message may have."""


async def uncancelled(work: Coroutine[Any, Any, T], why: str) -> T:
    """The result of `work`. A requested cancellation is logged with `why` and ends nothing."""
    task = asyncio.create_task(work)
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # only the SDK can do so, when it evicts this run from memory
                raise
            workflow.logger.warning(why)


async def in_books(method: Callable[[Any, A], Awaitable[T]], asked: A) -> T:
    """The result of one short transaction, as soon as Postgres is there.

    Raises a failure that no repeat can fix. Raises also an unforeseen error that came at every try, for an operator.
    """
    try:
        return await workflow.execute_local_activity_method(method, asked, **LEDGER)
    except FailureError as error:
        if _is_final(error) or is_cancelled_exception(error):
            raise
        if _is_unforeseen(error) and workflow.patched("unforeseen-in-books"):
            raise
    return await workflow.execute_activity_method(method, asked, summary="the books are away", **BOOKS)


async def until_done(
    step: str,
    call: Callable[[], Awaitable[T]],
    *,
    renew: Callable[[], Awaitable[None]],
    mended: Callable[[], bool] = lambda: False,
) -> T:
    """The result of the step, however long it takes. `call` starts the step anew each time.

    `renew` goes on in a new run from this very step. It may return instead, and is then called again after the next
    try. A pause ends early when `mended` becomes true.
    """
    asked_for_help, pause = _asked_by_an_earlier_run(), _FIRST_PAUSE
    while True:
        try:
            result = await call()
        except (ActivityError, ApplicationError) as error:  # a local activity's failure comes without a wrapper
            reason = _reason(error)
            workflow.set_current_details(f"**needs an operator**, {step}: {reason}")
            if not asked_for_help:
                asked_for_help = True
                workflow.upsert_search_attributes([search_attributes.NEEDS_OPERATOR.value_set(True)])
            if grown_long():
                await renew()
            with suppress(TimeoutError):
                await workflow.wait_condition(
                    mended, timeout=pause, timeout_summary="an operator must look; then it is tried again"
                )
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            if asked_for_help:
                workflow.upsert_search_attributes([search_attributes.NEEDS_OPERATOR.value_set(False)])
            return result


def again(asked: object) -> Callable[[], Awaitable[None]]:
    """A `renew` for a workflow that knows nothing but its input: a new run begins with the same input."""

    async def renew() -> None:
        workflow.continue_as_new(asked)

    return renew


def not_yet() -> ApplicationError:
    """The error for an update whose step goes on in a new run: the same update, sent again, finds it there."""
    return ApplicationError("it is kept as soon as the books take it; ask again", type=update_failure.NOT_YET)


async def side_by_side(do: Callable[[A], Awaitable[None]], each: Sequence[A]) -> None:
    """Call `do` for each item, many at a time. Histories of older releases call it one by one."""
    at_once = _AT_ONCE if each and workflow.patched("side-by-side") else 1
    for start in range(0, len(each), at_once):
        await asyncio.gather(*(do(one) for one in each[start : start + at_once]))


def grown_long() -> bool:
    """Whether the history is so long that the workflow should go on in a new run.

    Each answer has a patch of its own, named by the length. So a history that older code has written replays past the
    places where that code went on, and is renewed at the next one.
    """
    info = workflow.info()
    return info.is_continue_as_new_suggested() and workflow.patched(f"as-new-at-{info.get_current_history_length()}")


def _is_final(error: FailureError) -> bool:
    reason = _reason(error)
    return isinstance(reason, ApplicationError) and reason.non_retryable


def _is_unforeseen(error: FailureError) -> bool:
    reason = _reason(error)
    return isinstance(reason, ApplicationError) and reason.type not in _AWAY


def _reason(error: FailureError) -> BaseException | None:
    return error.cause if isinstance(error, ActivityError) else error


def _asked_by_an_earlier_run() -> bool:
    info = workflow.info()
    return info.continued_run_id is not None and bool(
        info.typed_search_attributes.get(search_attributes.NEEDS_OPERATOR)
    )
