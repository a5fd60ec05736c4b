"""Turns the engine's errors into Temporal failures, by one table, around every activity of a worker.

| error                                                | repeated by policy? |
|------------------------------------------------------|---------------------|
| Unavailable, OutcomeUnknown                          | yes                 |
| Invalid, Conflict, NotFound, Refused, InvariantBroken | no: the workflow decides |
| anything else (lost connection, a part restarting)   | yes                 |

A repeat after OutcomeUnknown is safe: every activity that moves money looks before it acts.
"""

from datetime import timedelta
from typing import Any

from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from engine.domain.errors import EngineError, OutcomeUnknown, Unavailable


def as_failure(error: EngineError) -> ApplicationError:
    """The Temporal failure for this error, with its code and fields as details.

    A field `retry_after_s` sets the delay of the next try, in place of the policy's own interval.
    """
    retry_after_s = error.fields.get("retry_after_s")
    return ApplicationError(
        error.detail,
        {"code": error.code, **error.fields},
        type=type(error).__name__,
        non_retryable=not isinstance(error, Unavailable | OutcomeUnknown),
        next_retry_delay=timedelta(seconds=retry_after_s) if isinstance(retry_after_s, int) else None,
    )


class _Translating(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002, ANN401 - the SDK's signature
        try:
            return await self.next.execute_activity(input)
        except EngineError as error:
            raise as_failure(error) from error


class FailureInterceptor(Interceptor):
    """Give this to every worker."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 - the SDK's signature
        return _Translating(next)
