"""Makes payouts of the queue: when they are due, who goes, with which coins, stored before anybody acts on it.

    alone       a payout of its own, at once
    together    after the window of the oldest, when enough wait, or at an operator's word
    unlinked    payouts of their own, of coins that lead to no deposit of any member

Members, plan, inputs and reservations are one transaction, under the lock of the wallet's coins. So processes choose
one after the other, and a call that is repeated finds its members sealed.
"""

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from temporalio import activity
from temporalio.client import Client

from activities.payout.replace import MOST_COINS, candidates, change_script
from activities.payout.tell import begin_planned, tell_members
from activities.withdrawal.ending import fail_in_tx
from engine.bank.withdrawal import coin, payout, queue, version
from engine.bank.withdrawal.rules import read_withdrawal_rules
from engine.bank.withdrawal.withdrawal import get_row_in_tx
from engine.clients.bitcoind.hot import HotWallet
from engine.contracts import workflow_ids
from engine.contracts.batcher import Batcher, BatcherActivities, Formed
from engine.contracts.payout import PayoutRef
from engine.domain.deposit import Outpoint
from engine.domain.ids import PayoutId, WithdrawalId, new_id
from engine.domain.withdrawal.fee_rate import Rate, choose_rate
from engine.domain.withdrawal.plan import Item, Plan, plan
from engine.domain.withdrawal.rules import WithdrawalRules
from engine.domain.withdrawal.withdrawal import PayoutKind, VersionKind
from engine.ledger.database import Connection, Pool, borrowed, transaction

_AT_ONCE = 20
"""So many payouts are formed by one call; the workflow calls again while there are more."""
_LOOKS_AHEAD = 3
"""So many times what one payout takes is read of the queue: who does not go now must not hide who could."""
_PATIENCE_S = 3600
"""So long may smaller, younger ones go while the oldest waits for coins. Then it comes first."""
_WAITING_LOOK_S = 60.0


@dataclass(frozen=True, slots=True)
class _Round:
    """What is the same for all payouts of one call."""

    batcher: Batcher
    rules: WithdrawalRules
    rate: Rate
    frozen: frozenset[Outpoint]


class Batchers(BatcherActivities):
    """Bound to one wallet of one node."""

    def __init__(self, pool: Pool, client: Client, wallet: HotWallet) -> None:
        self._pool, self._client, self._wallet = pool, client, wallet

    @activity.defn
    async def form_payouts(self, batcher: Batcher) -> Formed:
        await begin_planned(self._pool, self._client, self._wallet.name)
        async with borrowed(self._pool) as conn:
            rules = await read_withdrawal_rules(conn)
            if not (await queue.look(conn, batcher.speed)).count:
                return Formed()
        estimate = await self._wallet.fees.estimate(rules.speeds[batcher.speed].target_blocks)
        floor = await self._wallet.fees.node_floor()
        rate = choose_rate(estimate, node_floor=floor, rules=rules.rate, now=datetime.now(UTC))
        this = _Round(batcher, rules, rate, await self._wallet.spending.frozen())
        formed: list[PayoutRef] = []
        for _ in range(_AT_ONCE):
            moved: list[str] = []
            ref = await self._form(this, moved)
            await tell_members(self._client, moved)
            if ref is None:
                break
            formed.append(ref)
        async with borrowed(self._pool) as conn:
            left = await queue.look(conn, batcher.speed)
            why = await queue.find_first_note(conn, batcher.speed)
        return _formed(this, formed, left, why)

    async def _form(self, this: _Round, moved: list[str]) -> PayoutRef | None:
        """The next payout that is due, stored; None: none is. `moved` gets the workflows of who leaves the queue."""
        async with transaction(self._pool) as conn:
            await coin.lock_coins_in_tx(conn, self._wallet.name)
            limit = _LOOKS_AHEAD * this.rules.max_outputs
            waiting = await queue.list_queued_in_tx(conn, this.batcher.speed, limit=limit)
            for group in _due_groups(this, waiting):
                ref = await self._plan_in_tx(conn, this, group, moved)
                if ref is not None:
                    return ref
        return None

    async def _plan_in_tx(
        self, conn: Connection, this: _Round, group: Sequence[queue.Queued], moved: list[str]
    ) -> PayoutRef | None:
        """Plan the group, and store what comes of it: a payout, notes for those who wait, failures for good."""
        unlinked = group[0].unlinked
        free = await coin.list_free(
            conn,
            self._wallet.name,
            min_depth=this.rules.coins.min_depth,
            limit=MOST_COINS,
            unlinked_to={each.account_id for each in group} if unlinked else None,
        )
        made = plan(
            [_item(each) for each in group],
            candidates(free, this.frozen),
            this.rate.rate_sat_kvb,
            this.rules,
            change_script(self._wallet.address_type),
            randrange=secrets.randbelow,
            allow_younger=group[0].waited_s < _PATIENCE_S,
        )
        await queue.note_waits_in_tx(
            conn, {WithdrawalId(each.id): each.why for each in made.left_out if each.fatal is None}
        )
        for each in made.left_out:
            if each.fatal is not None:
                row = await get_row_in_tx(conn, WithdrawalId(each.id))
                await fail_in_tx(conn, row, code=each.fatal, detail=each.why)
        leaving = {each.id for each in made.members} | {each.id for each in made.left_out if each.fatal}
        moved += [each.workflow_id for each in group if each.id in leaving]
        if not made.members:
            return None
        return await self._store_in_tx(conn, this, group[0], made)

    async def _store_in_tx(self, conn: Connection, this: _Round, first: queue.Queued, made: Plan) -> PayoutRef:
        payout_id = PayoutId(new_id("payout"))
        ref = PayoutRef(payout_id=payout_id, workflow_id=workflow_ids.payout(payout_id))
        estimate = {**asdict(this.rate), "at": this.rate.at and this.rate.at.isoformat()}
        await payout.add_in_tx(
            conn,
            payout.NewPayout(
                id=payout_id,
                wallet=self._wallet.name,
                kind=PayoutKind.BATCH,
                speed=this.batcher.speed,
                workflow_id=ref.workflow_id,
                alone=first.alone,
                unlinked=first.unlinked,
                estimate=estimate,
            ),
        )
        inputs = [version.Input(outpoint=each.outpoint, amount_sat=each.amount_sat) for each in made.inputs]
        await version.add_in_tx(
            conn,
            version.NewVersion(
                payout_id=payout_id,
                number=1,
                kind=VersionKind.FIRST,
                rate_sat_kvb=made.rate_sat_kvb,
                fee_sat=made.fee_sat,
                weight=made.weight,
                change_sat=made.change_sat,
                change_vout=made.change_vout,
                inputs=inputs,
            ),
        )
        await coin.reserve_in_tx(conn, payout_id, [each.outpoint for each in inputs])
        seals = [
            queue.Seal(
                id=WithdrawalId(each.id),
                place=each.place,
                vout=each.vout,
                paid_sat=each.paid_sat,
                miner_fee_sat=each.miner_fee_sat,
            )
            for each in made.members
        ]
        await queue.seal_in_tx(conn, payout_id, seals)
        return ref


def _due_groups(this: _Round, waiting: Sequence[queue.Queued]) -> list[list[queue.Queued]]:
    """Those that may go together and are due now. Unlinked ones go together, and one by one where that fails."""
    speed = this.rules.speeds[this.batcher.speed]
    groups = [[each] for each in waiting if each.alone]
    for unlinked in (False, True):
        together = [each for each in waiting if not each.alone and each.unlinked is unlinked]
        is_due = this.batcher.flush or len(together) >= speed.count
        if together and (is_due or together[0].waited_s >= speed.window_s):
            groups.append(together)
            groups += [[each] for each in together] if unlinked and len(together) > 1 else []
    return groups


def _item(queued: queue.Queued) -> Item:
    return Item(
        id=queued.id,
        script=queued.script,
        amount_sat=queued.amount_sat,
        fee_from=queued.fee_from,
        service_fee_msat=queued.service_fee_msat,
        max_fee_sat=queued.max_fee_sat,
    )


def _formed(this: _Round, formed: list[PayoutRef], left: queue.QueueLook, why: str | None) -> Formed:
    again_in_s = None
    if left.count:
        window_s = this.rules.speeds[this.batcher.speed].window_s
        again_in_s = max(0.0, window_s - left.waited_s) or _WAITING_LOOK_S
    return Formed(
        payouts=formed,
        waiting=left.count,
        again_in_s=again_in_s,
        problem=why,
        needs_operator=left.count > 0 and left.waited_s > _PATIENCE_S + this.rules.speeds[this.batcher.speed].window_s,
    )
