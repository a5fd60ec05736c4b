"""Starts or signals the workflow of each deposit whose next step is due: one each, or one for a page of them."""

import asyncio
from collections.abc import Sequence

from temporalio.client import Client

from activities.payout.tell import chain_moved, coins_came
from engine.bank.chain.due import Due, list_due
from engine.contracts.deposit import DepositPage, deposit_start, deposits_start
from engine.contracts.workflow_start import start_workflow
from engine.domain.ids import DepositId
from engine.ledger.database import Pool, borrowed

_MOST = 20_000
_SIDE_BY_SIDE = 16
_TOLD_AGAIN_AFTER_S = 20
"""How long a workflow that was told has to book its step before it is told again."""
_PAGES_AT_ONCE = 2
"""So many pages are booked at a time. More would keep payments from the connections to PostgreSQL, and wait there."""
_SLOW_AFTER_S = 5
"""A page that takes longer no longer keeps the next one waiting: perhaps it waits for an operator."""


_COINS_EVERY_S = 5
"""So often at most batchers hear of coins: while many deposits come, each look would find some."""


class Waker:
    """Remembers whom it told, so that no workflow is told at each look."""

    def __init__(self, pool: Pool, client: Client, together: int) -> None:
        self._pool = pool
        self._client = client
        self._together = together
        self._told: dict[tuple[DepositId, str], float] = {}
        self._booked, self._coins_told_at = False, float("-inf")

    async def tell_spenders(self, wallet: str) -> None:
        """A block has come or gone: payouts that wait for one look, and batchers that wait for coins."""
        await chain_moved(self._pool, self._client, wallet)

    async def tell_of_coins(self, wallet: str) -> None:
        """Deposits were booked: their coins may be spent now, and batchers that have left somebody out look again.

        A block alone does not say so, because it is there before its deposits are in the books.
        """
        now = asyncio.get_running_loop().time()
        if self._booked and now >= self._coins_told_at + _COINS_EVERY_S:
            self._booked, self._coins_told_at = False, now
            await coins_came(self._pool, self._client, wallet)

    async def wake(self, tip_height: int) -> bool:
        """Wake the workflows of what is due. Returns when Temporal has accepted them. A repeat is harmless.

        True: pages are booked now, and others may have to follow.
        """
        now = asyncio.get_running_loop().time()
        room = _PAGES_AT_ONCE * self._together
        async with borrowed(self._pool) as conn:
            due = await list_due(conn, tip_height, _MOST, room * (1 + _TOLD_AGAIN_AFTER_S // _SLOW_AFTER_S))
        known = {(each.id, each.state): each for each in due}
        self._booked = self._booked or bool(self._told.keys() - known.keys())
        self._told = {key: at for key, at in self._told.items() if key in known and now < at + _TOLD_AGAIN_AFTER_S}
        new = [each for key, each in known.items() if key not in self._told]
        waiting = [each for each in new if not each.alone]
        in_work = sum(now < at + _SLOW_AFTER_S for key, at in self._told.items() if not known[key].alone)
        chosen = waiting[: max(0, room - in_work)]
        shared = [each.id for each in sorted(chosen, key=lambda each: each.account_id or "")]
        gate = asyncio.Semaphore(_SIDE_BY_SIDE)

        async def one(each: Due) -> None:
            async with gate:
                start = deposit_start(
                    each.id, each.workflow_id, txid=each.txid, amount_sat=each.amount_sat, account=each.account_id
                )
                await start_workflow(self._client, start, signal="chain_moved")

        async def page(deposits: Sequence[DepositId]) -> None:
            async with gate:
                start = deposits_start(DepositPage(deposits=list(deposits), height=tip_height))
                await start_workflow(self._client, start)

        await asyncio.gather(
            *(one(each) for each in new if each.alone),
            *(page(shared[at : at + self._together]) for at in range(0, len(shared), self._together)),
        )
        self._told |= {(each.id, each.state): now for each in (*chosen, *(each for each in new if each.alone))}
        return in_work + len(chosen) > 0
