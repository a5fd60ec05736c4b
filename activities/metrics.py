"""Counters of a worker, served with the SDK's own metrics when `MILLRACE_METRICS_ADDRESS` is set.

    millrace_payments_finished_total{outcome}                settled, failed or refused, or key_conflict;
                                                             payments of a lane or a batch one by one
    millrace_activity_failures_total{activity_type, code}    each failed try, by the code of the error

The process that ran an activity counts when it has ended. When a worker dies between a commit and its answer, the
repeat is counted. So use the sums for rates and alerts; only the books say how many payments there were. The
interceptor wraps the one that translates errors, so it sees what Temporal sees.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from engine.contracts.batch import BatchOutcome
from engine.contracts.lane import LaneOutcome
from engine.contracts.payment import OpenedPayment, PaymentOutcome


def outcome_of(result: object) -> str | None:
    """How a payment ended with this result of an activity; None while it goes on, and for any other result."""
    outcome = result.outcome if isinstance(result, OpenedPayment) else result
    if not isinstance(outcome, PaymentOutcome) or not outcome.is_final:
        return None
    if outcome.status is not None:
        return outcome.status.value
    return "key_conflict" if outcome.key_conflict else "refused"


def outcomes_of(result: object) -> Mapping[str, int]:
    """How many payments ended with each outcome in this result of an activity. All payments of a batch end alike."""
    if isinstance(result, LaneOutcome):
        ends = (outcome_of(each) for each in result.outcomes)
        return Counter(end for end in ends if end is not None)
    if isinstance(result, BatchOutcome):
        end = "refused" if result.refusal else "key_conflict" if result.key_conflict else "settled"
        return {end: result.count}
    end_of_one = outcome_of(result)
    return {} if end_of_one is None else {end_of_one: 1}


def code_of(error: BaseException) -> str:
    """The stable code of an engine error, else the name of the error's class."""
    if isinstance(error, ApplicationError) and error.details and isinstance(error.details[0], dict):
        return str(error.details[0].get("code", error.type))
    return type(error).__name__


class _Counting(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002, ANN401 - the SDK's signature
        meter = activity.metric_meter()
        try:
            result = await self.next.execute_activity(input)
        except Exception as error:
            failures = meter.create_counter("millrace_activity_failures", "Failed tries of activities.")
            failures.add(1, {"code": code_of(error)})
            raise
        for outcome, count in outcomes_of(result).items():
            finished = meter.create_counter("millrace_payments_finished", "Payments whose end is known.")
            finished.add(count, {"outcome": outcome})
        return result


class CountingInterceptor(Interceptor):
    """Give this to every worker, before the others."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 - the SDK's signature
        return _Counting(next)
