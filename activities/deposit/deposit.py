"""Moves deposits on in the books: as many steps as the chain asks for, in one transaction.

    hold      incoming is shown; what exceeds the limits is noted
    drop      incoming is taken away again
    book      credited, or parked: below the minimum, above the limits, for nobody or for a closed account
    reverse   taken back; what its owner has spent becomes a loss and a receivable, and the account is locked
    finish    it lies deep

The row is locked first and says what is booked. So a second call finds the first one's work, and calls of a page and of
a single deposit come one after the other. The tip is read under that lock: an older tip could be higher than the one at
which the row was written. What the chain shows may change meanwhile: the pump sees that a step is due.
"""

from collections.abc import Sequence

from temporalio import activity

from activities.deposit.booking import Booking
from activities.deposit.reversal import reverse
from engine.bank.chain.cursor import read_tip_height
from engine.bank.chain.deposit import DepositRow, get_rows_in_tx, write_booked_in_tx
from engine.bank.chain.owner import Owned, find_open_owners
from engine.bank.chain.receivable import list_open_in_tx
from engine.contracts.deposit import DepositActivities, DepositPage, DepositRef, DepositState, LeftAlone, MovedPage
from engine.domain.deposit import NEEDS_OPERATOR, Sight, Step, depth, next_step
from engine.domain.errors import EngineError, InvariantBroken, Refused, Unavailable
from engine.domain.ids import DepositId
from engine.ledger.chart import Chart
from engine.ledger.database import Connection, Pool, transaction
from engine.ledger.store import post_new_all_in_tx

_MOST_STEPS = 8
"""Drop, hold, book, reverse and finish, from any state to any other. More would be a circle."""


class Deposits(DepositActivities):
    """Needs Postgres and nothing else."""

    def __init__(self, pool: Pool, ids: Chart) -> None:
        self._pool = pool
        self._ids = ids
        self._booking = Booking(ids)

    @activity.defn
    async def advance_deposit(self, deposit: DepositRef) -> DepositState:
        """An account that is closed at this very moment makes the deposit one for nobody: the second call sees it."""
        try:
            return await self._advance_one(deposit.deposit)
        except Refused as refused:
            if refused.code != "account_closed":
                raise
            return await self._advance_one(deposit.deposit)

    @activity.defn
    async def advance_deposits(self, page: DepositPage) -> MovedPage:
        """What contradicts the books leaves no trace here: a workflow of its own calls an operator."""
        alone: list[LeftAlone] = []
        moved: list[DepositRow] = []
        async with transaction(self._pool) as conn:
            rows = await get_rows_in_tx(conn, page.deposits)
            tip_height = await read_tip_height(conn)
            owned = await find_open_owners(conn, rows)
            together = await self._book_together(conn, owned, tip_height)
            for row, owner in owned:
                begun = together.get(row.id, row)
                try:
                    if row.id in together:
                        after = await self._advance(conn, (begun, owner), tip_height)
                    else:
                        async with conn.transaction():
                            after = await self._advance(conn, (begun, owner), tip_height)
                except Unavailable:
                    raise
                except EngineError as error:
                    activity.logger.error("left out of a page: %s: %s", row.id, error)
                    after = begun.now_booked(alone=True)
                if after.booked.alone:
                    alone.append(_left_alone(after))
                if after is not row:
                    moved.append(after)
            await write_booked_in_tx(conn, moved)
        return MovedPage(moved=len(moved), left_alone=alone)

    async def _book_together(
        self, conn: Connection, owned: Sequence[Owned], tip_height: int
    ) -> dict[DepositId, DepositRow]:
        """Book the usual steps in one call. Returns these rows as they are then; none when the books refuse one."""
        plans = [
            plan
            for row, owner in owned
            if (plan := await self._booking.plan(conn, row, owner, next_step(row.facts, tip_height)))
        ]
        if not plans:
            return {}
        try:
            async with conn.transaction():
                await post_new_all_in_tx(conn, [plan.posting for plan in plans])
        except Unavailable:
            raise
        except EngineError as error:
            activity.logger.info("a page is booked one by one: %s", error)
            return {}
        return {plan.after.id: plan.after for plan in plans}

    async def _advance_one(self, deposit: DepositId) -> DepositState:
        async with transaction(self._pool) as conn:
            rows = await get_rows_in_tx(conn, [deposit])
            tip_height = await read_tip_height(conn)
            ((row, owner),) = await find_open_owners(conn, rows)
            after = await self._advance(conn, (row, owner), tip_height)
            if after is not row:
                await write_booked_in_tx(conn, [after])
            owed_msat = sum(owed.amount_msat for owed in await list_open_in_tx(conn, deposit))
        return _state(after, tip_height, owed_msat)

    async def _advance(self, conn: Connection, owned: Owned, tip_height: int) -> DepositRow:
        row, owner = owned
        for _ in range(_MOST_STEPS):
            match next_step(row.facts, tip_height):
                case Step.WAIT:
                    return row
                case Step.HOLD:
                    row = await self._booking.hold(conn, row, owner)
                case Step.DROP:
                    row = await self._booking.drop(conn, row)
                case Step.BOOK:
                    row = await self._booking.book(conn, row, owner)
                case Step.REVERSE:
                    row = await reverse(conn, self._ids, row)
                case Step.FINISH:
                    row = row.now_booked(final_at=row.now)
        raise InvariantBroken(f"{row.id} does not come to rest in the books: {row.facts}")


def _left_alone(row: DepositRow) -> LeftAlone:
    return LeftAlone(
        deposit=row.id,
        workflow_id=row.workflow_id,
        txid=row.txid,
        amount_sat=row.amount_sat,
        account_id=row.booked.account_id,
    )


def _state(row: DepositRow, tip_height: int, owed_msat: int) -> DepositState:
    needs_operator = row.booked.status in NEEDS_OPERATOR or owed_msat > 0
    is_over = row.booked.final_at is not None or (row.sight is Sight.GONE and row.booked.conf_ref is None)
    return DepositState(
        status=row.booked.status,
        outpoint=str(row.outpoint),
        amount_sat=row.amount_sat,
        wallet_id=row.booked.wallet_id,
        waits_for=_waits_for(row, tip_height, owed_msat),
        ended=is_over and not needs_operator,
        needs_operator=needs_operator,
        receivable_msat=owed_msat,
    )


def _waits_for(row: DepositRow, tip_height: int, owed_msat: int) -> str:
    if owed_msat:
        return f"two operators, or its return to the chain: {owed_msat:,} msat are owed, and the account is locked"
    if row.booked.status in NEEDS_OPERATOR:
        return "two operators, who decide whose it is"
    if row.sight is Sight.GONE:
        return "nothing: its transaction is neither in a block nor in the mempool"
    return _waits_for_blocks(row, tip_height)


def _waits_for_blocks(row: DepositRow, tip_height: int) -> str:
    if row.block_height is None:
        return f"a block, then {row.required} confirmations"
    if row.booked.final_at is not None:
        return "nothing"
    if row.booked.conf_ref is not None:
        return f"block {row.block_height + row.deep - 1:,}: after it no reorganisation is expected"
    now = depth(row.block_height, tip_height)
    return f"block {row.block_height + row.required - 1:,}: {now} of {row.required} confirmations"
