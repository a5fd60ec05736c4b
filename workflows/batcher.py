"""The batcher of a wallet and a speed: collects withdrawals, and makes payouts of them when they are due.

The queue stands in the books, and `form_payouts` says what is due by it: after the window of the first one, when
enough wait, or at an operator's word. This workflow only knows when to look. Payouts go on by themselves.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

from temporalio import workflow

from workflows.children import start_child
from workflows.patience import grown_long, side_by_side, until_done
from workflows.policies import SPEND

with workflow.unsafe.imports_passed_through():
    from engine.contracts import queues, search_attributes
    from engine.contracts.batcher import Batcher, BatcherActivities, Formed
    from engine.contracts.payout import payout_start

_AT_LEAST = timedelta(seconds=1)
_LOOKS_AGAIN = timedelta(minutes=30)


@workflow.defn
class BatcherWorkflow:
    """Runs for ever, one per wallet and speed. A flush that comes at the end of a run is done in the next one."""

    @workflow.init
    def __init__(self, batcher: Batcher) -> None:
        self._joined = True
        self._flush = batcher.flush
        self._flushed = False
        """Whether the last look was a flush."""

    @workflow.run
    async def run(self, batcher: Batcher) -> None:
        while True:
            formed = await until_done(
                "forming payouts",
                lambda: self._form(batcher),
                renew=self._renewed(batcher),
                mended=lambda: self._joined,
            )
            if formed.payouts and formed.waiting:  # one call makes only so many; a flush is for all of them
                self._flush = self._flush or self._flushed
            await side_by_side(start_child, [payout_start(each) for each in formed.payouts])
            _show(formed)
            if grown_long():
                await self._renewed(batcher)()
            if formed.payouts and formed.waiting:
                continue
            await self._wait(formed)

    async def _form(self, batcher: Batcher) -> Formed:
        self._joined, flush, self._flush = False, self._flush, False
        self._flushed = flush
        try:
            return await workflow.execute_activity_method(
                BatcherActivities.form_payouts, replace(batcher, flush=flush), task_queue=queues.ONCHAIN, **SPEND
            )
        except BaseException:
            self._flush = self._flush or flush
            raise

    async def _wait(self, formed: Formed) -> None:
        """Until the first one is due, or somebody joins. Who joins an open window is counted when it ends."""
        until = _LOOKS_AGAIN if formed.again_in_s is None else max(_AT_LEAST, timedelta(seconds=formed.again_in_s))
        try:
            await workflow.wait_condition(
                lambda: self._joined or self._flush,
                timeout=until,
                timeout_summary=formed.problem or "for withdrawals",
            )
        except TimeoutError:
            return

    def _renewed(self, batcher: Batcher) -> Callable[[], Awaitable[None]]:
        async def renew() -> None:
            workflow.continue_as_new(replace(batcher, flush=self._flush))

        return renew

    @workflow.signal
    def joined(self) -> None:
        """Another one waits, or coins have come."""
        self._joined = True

    @workflow.signal
    def flush(self) -> None:
        """An operator wants what waits to go now. A pause after a failure ends too."""
        self._flush = self._joined = True


def _show(formed: Formed) -> None:
    lines = [f"**{formed.waiting} waiting**"]
    if formed.problem:
        lines.append(f"- the first one waits for {formed.problem}")
    if formed.again_in_s is not None:
        lines.append(f"- next look in {formed.again_in_s:.0f} s")
    workflow.set_current_details("\n".join(lines))
    workflow.upsert_search_attributes(
        [
            search_attributes.STATUS.value_set("waiting" if formed.waiting else "idle"),
            search_attributes.NEEDS_OPERATOR.value_set(formed.needs_operator),
        ]
    )
