"""Announces the end of a payment to the processes that wait for it. Wraps every activity that may end a payment.

The announcement follows the activity, and therefore its commit. A process that misses it learns of the end another way.
"""

from collections.abc import Sequence
from typing import Any

from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from engine.clients.announcements import Announcer
from engine.contracts.lane import LaneOutcome, LaneRequest
from engine.contracts.payment import (
    OpenedPayment,
    PaymentOutcome,
    PaymentRequest,
    ReleasePayment,
    SettlePayment,
)
from engine.domain.ids import PaymentId


def ended(asked: object, result: object) -> Sequence[PaymentId]:
    """The payments that have ended, read from an activity's input and result.

    The payments of a lane over Lightning are left out: each was announced when it ended.
    """
    if isinstance(asked, LaneRequest) and isinstance(result, LaneOutcome) and not asked.over_lightning:
        return [each.payment_id for each, end in zip(asked.items, result.outcomes, strict=True) if end.is_final]
    outcome = result.outcome if isinstance(result, OpenedPayment) else result
    if isinstance(asked, PaymentRequest | SettlePayment | ReleasePayment) and isinstance(outcome, PaymentOutcome):
        return [asked.payment_id] if outcome.is_final else []
    return []


class _Announcing(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, announcer: Announcer) -> None:  # noqa: A002 - the SDK's signature
        super().__init__(next)
        self._announcer = announcer

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002, ANN401 - the SDK's signature
        result = await self.next.execute_activity(input)
        self._announcer.announce(ended(input.args[0] if input.args else None, result))
        return result


class AnnouncingInterceptor(Interceptor):
    """Give this to the worker whose activities end payments."""

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 - the SDK's signature
        return _Announcing(next, self._announcer)
