"""Plans the next payout of a queue and stores it: members, coins and promises, in the caller's transaction."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from activities.payout.group import Round, due_groups
from activities.payout.new import Planned, add_in_tx
from activities.payout.replace import MOST_COINS, candidates, change_script
from activities.withdrawal.ending import fail_in_tx
from engine.bank.withdrawal import coin, queue, version
from engine.bank.withdrawal.withdrawal import get_row_in_tx
from engine.contracts.payout import PayoutRef
from engine.domain.ids import WithdrawalId
from engine.domain.withdrawal.plan import Item, LeftOut, Plan, plan
from engine.domain.withdrawal.withdrawal import PayoutKind
from engine.ledger.database import Connection

PATIENCE_S = 3600
"""So long may smaller, younger ones go while the oldest waits for coins. Then it comes first."""
_NOT_THEIR_TURN = "an older one that waits for coins comes first"
_LOOKS_AHEAD = 3
"""So many times what one payout takes is read of the queue: who does not go now must not hide who could."""


@dataclass(slots=True)
class Made:
    """What came of one step: a payout, or none; and the workflows of those who have left the queue."""

    payout: PayoutRef | None = None
    moved: list[str] = field(default_factory=list[str])
    hopeless: dict[str, LeftOut] = field(default_factory=dict[str, LeftOut])
    """Who fails for good, by the id of the withdrawal."""


async def form_in_tx(conn: Connection, this: Round) -> Made:
    """Store the next payout that is due, under the lock of the wallet's coins. Without one, only notes are written."""
    made = Made()
    await coin.lock_coins_in_tx(conn, this.batcher.wallet)
    limit = _LOOKS_AHEAD * this.rules.max_outputs
    waiting = await queue.list_queued_in_tx(conn, this.batcher.speed, limit=limit)
    groups = due_groups(this, waiting)
    for turn, group in enumerate(groups):
        able = [each for each in group if each.id not in made.hopeless]
        if not able:
            continue
        made.payout, is_short = await _plan_in_tx(conn, this, able, made)
        if made.payout is not None:
            break
        if is_short and _comes_first(able[0]):
            behind = [WithdrawalId(each.id) for later in groups[turn + 1 :] for each in later]
            await queue.note_waits_in_tx(conn, dict.fromkeys(behind, _NOT_THEIR_TURN))
            break
    await _fail_in_tx(conn, made.hopeless)
    return made


async def _fail_in_tx(conn: Connection, hopeless: Mapping[str, LeftOut]) -> None:
    """All at the end, by their accounts in the books: whoever locks several balances locks them in this order."""
    rows = [await get_row_in_tx(conn, WithdrawalId(each)) for each in hopeless]
    for row in sorted(rows, key=lambda each: each.ledger_account_id):
        found = hopeless[row.id]
        await fail_in_tx(conn, row, code=found.fatal or found.reason, detail=found.why)


def _comes_first(oldest: queue.Queued) -> bool:
    """Whether it has waited so long that nobody younger goes before it, in its own payout or in another.

    An unlinked one never: it waits for the coins of others, and these must go on.
    """
    return oldest.waited_s >= PATIENCE_S and not oldest.unlinked


async def _plan_in_tx(
    conn: Connection, this: Round, group: Sequence[queue.Queued], so_far: Made
) -> tuple[PayoutRef | None, bool]:
    """Plan the group, and store what comes of it: a payout, notes for those who wait. Who fails for good is noted.

    Returns also whether the oldest of the group waits for coins.
    """
    free = await coin.list_free(
        conn,
        this.batcher.wallet,
        min_depth=this.rules.coins.min_depth,
        limit=MOST_COINS,
        unlinked_to={each.account_id for each in group} if group[0].unlinked else None,
    )
    # Thousands of coins take a tenth of a second, so payments must not wait for it.
    made = await asyncio.to_thread(
        plan,
        [_item(each) for each in group],
        candidates(free, this.frozen),
        this.rate.rate_sat_kvb,
        this.rules,
        change_script(this.address_type),
        randrange=secrets.randbelow,
        allow_younger=group[0].waited_s < PATIENCE_S,
    )
    await queue.note_waits_in_tx(
        conn, {WithdrawalId(each.id): each.why for each in made.left_out if each.fatal is None}
    )
    so_far.hopeless |= {each.id: each for each in made.left_out if each.fatal is not None}
    leaving = {each.id for each in made.members} | {each.id for each in made.left_out if each.fatal}
    so_far.moved += [each.workflow_id for each in group if each.id in leaving]
    is_short = any(each.reason == "money" and each.id == group[0].id for each in made.left_out)
    return (await _store_in_tx(conn, this, group[0], made) if made.members else None), is_short


async def _store_in_tx(conn: Connection, this: Round, first: queue.Queued, made: Plan) -> PayoutRef:
    planned = Planned(
        wallet=this.batcher.wallet,
        kind=PayoutKind.BATCH,
        speed=this.batcher.speed,
        estimate={**asdict(this.rate), "at": this.rate.at and this.rate.at.isoformat()},
        inputs=[version.Input(outpoint=each.outpoint, amount_sat=each.amount_sat) for each in made.inputs],
        rate_sat_kvb=made.rate_sat_kvb,
        fee_sat=made.fee_sat,
        weight=made.weight,
        change_sat=made.change_sat,
        change_vout=made.change_vout,
        alone=first.alone,
        unlinked=first.unlinked,
    )
    ref = await add_in_tx(conn, planned)
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
    await queue.seal_in_tx(conn, ref.payout_id, seals)
    return ref


def _item(queued: queue.Queued) -> Item:
    return Item(
        id=queued.id,
        script=queued.script,
        amount_sat=queued.amount_sat,
        fee_from=queued.fee_from,
        service_fee_msat=queued.service_fee_msat,
        max_fee_sat=queued.max_fee_sat,
    )
