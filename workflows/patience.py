"""What a workflow does when a step fails for good: it calls an operator, keeps what it holds, and tries again.

A step fails for good only when our own books or code contradict themselves. No money is moved by that, and none is
given back either; the workflow says where operators look what is wrong, and goes on when it has been mended. The pauses
grow, because each try adds to a history that Temporal ends at some 50,000 events: at a try a minute that was after
three days, and a payment may wait for weeks.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from engine.contracts import queues

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(minutes=1), timedelta(minutes=30)


async def until_done(step: str, call: Callable[[], Awaitable[T]], mended: Callable[[], bool] = lambda: False) -> T:
    """The result of the step, however long it takes to get one. `call` starts it anew each time.

    When `mended` becomes true in a pause, the pause is over.
    """
    asked_for_help, pause = False, _FIRST_PAUSE
    while True:
        try:
            result = await call()
        except (ActivityError, ApplicationError) as error:  # a local activity's failure comes bare
            reason = error.cause if isinstance(error, ActivityError) else error
            workflow.set_current_details(f"**needs an operator**, {step}: {reason}")
            if not asked_for_help:
                asked_for_help = True
                workflow.upsert_search_attributes([queues.NEEDS_OPERATOR.value_set(True)])
            with suppress(TimeoutError):
                await workflow.wait_condition(
                    mended, timeout=pause, timeout_summary="an operator must look; then it is tried again"
                )
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            if asked_for_help:
                workflow.upsert_search_attributes([queues.NEEDS_OPERATOR.value_set(False)])
            return result
