"""How a workflow waits for a step, for a second or for a year. Temporal ends a history at some 50,000 events, and a
payment with it. So a wait adds no events.

    tried within the workflow task    a few times: what a step in the books needs on any good day
    tried by the server               the same activity while a part is away; a retry is no event
    an operator, and a pause          the step fails for good, or in a way that nobody foresaw
    a new run                         when Temporal says that the history has grown long, with all that is known

No money is moved by a step that fails for good, and none is given back either. The workflow says where operators look
what is wrong, and goes on when it has been mended. The pauses grow to half an hour.
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
    from engine.contracts import search_attributes, updates
    from engine.domain.errors import OutcomeUnknown, Unavailable

A = TypeVar("A")
T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(minutes=1), timedelta(minutes=30)
_AWAY = (Unavailable.__name__, OutcomeUnknown.__name__)
"""The types of failures that end when the part has come back (`activities/failures.py`)."""
_AT_ONCE = 64
"""Children that one workflow task starts: with their inputs far below the 4 MB that a message may have."""


async def uncancelled(work: Coroutine[Any, Any, T], why: str) -> T:
    """The result of `work`. A cancel that somebody asks for is logged with `why`, and ends nothing."""
    task = asyncio.create_task(work)
    while True:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # by the SDK, which takes this run out of memory: nobody else has the task
                raise
            workflow.logger.warning(why)


async def in_books(method: Callable[[Any, A], Awaitable[T]], asked: A) -> T:
    """The result of one short transaction, whenever the books are there.

    Raises what no repeat will mend, and what is in no table of errors and came at every try: somebody must see it.
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
    """The result of the step, however long it takes to get one. `call` starts it anew each time.

    `renew` goes on in a new run from this very step; it may return, and is then asked again after the next try. When
    `mended` becomes true in a pause, the pause is over.
    """
    asked_for_help, pause = _asked_by_an_earlier_run(), _FIRST_PAUSE
    while True:
        try:
            result = await call()
        except (ActivityError, ApplicationError) as error:  # a local activity's failure comes bare
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
    """For what knows nothing but its input: goes on in a new run that begins with the same."""

    async def renew() -> None:
        workflow.continue_as_new(asked)

    return renew


def not_yet() -> ApplicationError:
    """For an update that waits for a step which goes on in a new run: the same update finds it there."""
    return ApplicationError("it is kept as soon as the books take it; ask again", type=updates.NOT_YET)


async def side_by_side(do: Callable[[A], Awaitable[None]], each: Sequence[A]) -> None:
    """Do it for all of them, many at the same time. Histories of older releases do it one by one."""
    at_once = _AT_ONCE if each and workflow.patched("side-by-side") else 1
    for start in range(0, len(each), at_once):
        await asyncio.gather(*(do(one) for one in each[start : start + at_once]))


def grown_long() -> bool:
    """Whether the history is so long that the workflow should go on in a new run.

    Each answer has a patch of its own, named by the length: a history that older code has written is replayed past the
    places where it went on, and renewed at the next.
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
