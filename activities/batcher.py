"""Makes payouts of the queue: when they are due, who goes, with which coins, stored before anybody acts on it.

    alone       a payout of its own, at once
    together    after the window of the oldest, when enough wait, or at an operator's word
    unlinked    payouts of their own, of coins that lead to no deposit of any member
    nobody      the batcher of slow ones joins small coins, if the rule wants that (`payout/consolidation.py`)

Members, plan, inputs and reservations are one transaction, under the lock of the wallet's coins. So processes choose
one after the other, and a call that is repeated finds its members sealed.
"""

from datetime import UTC, datetime

from temporalio import activity
from temporalio.client import Client

from activities.heartbeat import heartbeats
from activities.payout.consolidation import consolidate_in_tx, may_join
from activities.payout.forming import PATIENCE_S, form_in_tx
from activities.payout.group import Round
from activities.payout.tell import begin_planned, calling_operators, tell_members
from engine.bank.withdrawal import queue
from engine.bank.withdrawal.rules import read_withdrawal_rules
from engine.clients.bitcoind.hot import HotWallet
from engine.contracts.batcher import Batcher, BatcherActivities, Formed
from engine.contracts.payout import PayoutRef
from engine.domain.withdrawal.fee_rate import choose_rate
from engine.ledger.database import Pool, borrowed, transaction

_AT_ONCE = 20
"""So many payouts are formed by one call; the workflow calls again while there are more."""
_WAITING_LOOK_S = 60.0
_LONGEST_LOOK_S = 600.0
"""So soon at the latest a window or a count that operators have changed counts for those who wait already."""


class Batchers(BatcherActivities):
    """Bound to one wallet of one node."""

    def __init__(self, pool: Pool, client: Client, wallet: HotWallet) -> None:
        self._pool, self._client, self._wallet = pool, client, wallet

    @activity.defn
    async def form_payouts(self, batcher: Batcher) -> Formed:
        async with heartbeats(), calling_operators():
            return await self._look(batcher)

    async def _look(self, batcher: Batcher) -> Formed:
        await begin_planned(self._pool, self._client, self._wallet.name)
        async with borrowed(self._pool) as conn:
            rules = await read_withdrawal_rules(conn)
            waits = (await queue.look(conn, batcher.speed)).count
        if batcher.wallet != self._wallet.name:
            return _of_another_wallet(batcher.wallet, self._wallet.name, waits)
        if not waits and not may_join(batcher.speed, rules):
            return Formed()
        estimate = await self._wallet.fees.estimate(rules.speeds[batcher.speed].target_blocks)
        floor = await self._wallet.fees.node_floor()
        this = Round(
            batcher=batcher,
            rules=rules,
            rate=choose_rate(estimate, node_floor=floor, rules=rules.rate, now=datetime.now(UTC)),
            frozen=await self._wallet.spending.frozen(),
            address_type=self._wallet.address_type,
        )
        return await self._form(this)

    async def _form(self, this: Round) -> Formed:
        formed: list[PayoutRef] = []
        for _ in range(_AT_ONCE):
            async with transaction(self._pool) as conn:
                made = await form_in_tx(conn, this)
            await tell_members(self._client, made.moved)
            if made.payout is None:
                break
            formed.append(made.payout)
        if may_join(this.batcher.speed, this.rules) and not formed:
            async with transaction(self._pool) as conn:
                joined = await consolidate_in_tx(conn, this)
            formed += [] if joined is None else [joined]
        async with borrowed(self._pool) as conn:
            left = await queue.look(conn, this.batcher.speed)
            why = await queue.find_first_note(conn, this.batcher.speed)
        return _formed(this, formed, left, why)


def _of_another_wallet(wanted: str, own: str, waits: int) -> Formed:
    """Nothing is planned for a wallet that this worker cannot spend from: the members could not leave such a payout."""
    if not waits:
        return Formed()
    problem = f"a worker that spends from {wanted}; this one spends from {own}, by its settings"
    return Formed(waiting=waits, again_in_s=_WAITING_LOOK_S, problem=problem, needs_operator=True)


def _formed(this: Round, formed: list[PayoutRef], left: queue.QueueLook, why: str | None) -> Formed:
    again_in_s = None
    if left.count:
        window_s = this.rules.speeds[this.batcher.speed].window_s
        again_in_s = min(_LONGEST_LOOK_S, max(0.0, window_s - left.waited_s) or _WAITING_LOOK_S)
    return Formed(
        payouts=formed,
        waiting=left.count,
        again_in_s=again_in_s,
        problem=why,
        needs_operator=left.count > 0 and left.waited_s > PATIENCE_S + this.rules.speeds[this.batcher.speed].window_s,
    )
