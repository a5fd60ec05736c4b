"""The steps of a deposit in the books. Each takes the row as it is, posts, and returns the row as it is then.

The caller has locked the row, and writes it at the end of the same transaction. It also says who the owner is, if the
owner's account is open.
"""

from activities.deposit.plan import Plan, credited_or_parked, held
from engine.bank.chain.deposit import DepositRow
from engine.bank.chain.receivable import repay_in_tx
from engine.bank.fee_schedule import FeeBook
from engine.bank.limit import LimitBooks, Payer, counts_of, read_prices_micro
from engine.domain.deposit import DepositStatus, Place, Sight, Step
from engine.domain.errors import Refused
from engine.domain.fee import Charge
from engine.domain.limit import Count
from engine.domain.money import Msat
from engine.ledger.book import Posting
from engine.ledger.chart import Chart
from engine.ledger.database import Connection
from engine.ledger.postings.deposit import dropped
from engine.ledger.store import post_new_in_tx

_OVER = ("limit_exceeded",)


class Booking:
    """One per pool."""

    def __init__(self, ids: Chart) -> None:
        self._ids = ids
        self._fees = FeeBook()
        self._limits = LimitBooks()

    async def plan(self, conn: Connection, row: DepositRow, owner: Payer | None, step: Step) -> Plan | None:
        """The step as a single posting, which others may be booked together with. Books nothing.

        None for all that is not usual: nobody's deposits, those below the minimum or above a limit, second credits.
        """
        if owner is None or row.below_minimum or row.booked.over_limit or row.booked.confs:
            return None
        ids, counts, over_limit = await self._ids.load(conn), list[Count](), False
        if row.booked.hold_ref is None:
            counts, over_limit = await self._counts(conn, row, owner)
        if over_limit or step not in (Step.HOLD, Step.BOOK):
            return None
        if step is Step.HOLD:
            return held(ids, row, owner, counts)
        charge = await self._charge(conn, row, owner)
        return credited_or_parked(ids, row, owner, "wallet", DepositStatus.CREDITED, charge=charge, counts=counts)

    async def hold(self, conn: Connection, row: DepositRow, owner: Payer | None) -> DepositRow:
        """Show it as incoming. One that has no owner, or is below the minimum, is only pending again."""
        status = DepositStatus.BELOW_MINIMUM if row.below_minimum else DepositStatus.PENDING
        if row.booked.status is DepositStatus.REVERSED:
            status = DepositStatus.REVERSED
        if owner is None:
            return row.now_booked(status=status, wallet_id=None, account_id=None)
        if row.below_minimum:
            return row.now_booked(status=status)
        ids = await self._ids.load(conn)
        counts, over_limit = await self._counts(conn, row, owner)
        plan = held(ids, row, owner, counts)
        if over_limit or not await _is_taken(conn, plan.posting, unless=_OVER):
            over_limit = True
            plan = held(ids, row, owner, [])
            await post_new_in_tx(conn, plan.posting)
        return plan.after.now_booked(status=status, over_limit=over_limit)

    async def drop(self, conn: Connection, row: DepositRow) -> DepositRow:
        """Nothing is incoming any more. If its transaction is gone, so is the deposit, until it comes back."""
        hold = row.booked.hold_ref
        if hold is not None:
            await post_new_in_tx(conn, dropped(row.deposited, hold=hold, number=row.booked.holds))
        status = row.booked.status
        if row.sight is Sight.GONE and status is not DepositStatus.REVERSED:
            status = DepositStatus.DROPPED
        return row.now_booked(hold_ref=None, over_limit=False, status=status)

    async def book(self, conn: Connection, row: DepositRow, owner: Payer | None) -> DepositRow:
        """It is deep enough: credited, or parked where operators find it."""
        if owner is None:
            row = row.now_booked(wallet_id=None, account_id=None)
            return await self._book_at(conn, row, None, "suspense", DepositStatus.UNATTRIBUTED)
        if row.below_minimum:
            return await self._book_at(conn, row, owner, "pending", DepositStatus.BELOW_MINIMUM)
        counts: list[Count] = []
        over_limit = row.booked.over_limit
        if row.booked.hold_ref is None:
            counts, over_limit = await self._counts(conn, row, owner)
        if not counts and not over_limit:  # no limit can refuse it
            return await self._book_at(conn, row, owner, "wallet", DepositStatus.CREDITED)
        if not over_limit:
            try:
                async with conn.transaction():
                    return await self._book_at(conn, row, owner, "wallet", DepositStatus.CREDITED, counts)
            except Refused as refused:
                if refused.code not in _OVER:
                    raise
        return await self._book_at(conn, row, owner, "pending", DepositStatus.HELD)

    async def _book_at(
        self,
        conn: Connection,
        row: DepositRow,
        owner: Payer | None,
        place: Place,
        status: DepositStatus,
        counts: list[Count] | None = None,
    ) -> DepositRow:
        charge, repaid_msat = None, Msat(0)
        if owner is not None and place == "wallet":
            charge = await self._charge(conn, row, owner)
            if row.booked.confs:
                repaid_msat = await repay_in_tx(conn, row.id, Msat(row.amount_msat - charge.fee_msat))
        ids = await self._ids.load(conn)
        plan = credited_or_parked(
            ids, row, owner, place, status, charge=charge, repaid_msat=repaid_msat, counts=counts or ()
        )
        await post_new_in_tx(conn, plan.posting)
        return plan.after

    async def _counts(self, conn: Connection, row: DepositRow, owner: Payer) -> tuple[list[Count], bool]:
        """What it counts towards the limits, and whether it exceeds them for sure.

        A later credit counts what the earlier ones have not: another version of its transaction may pay more.
        """
        more_msat = Msat(row.amount_msat - row.booked.counted_msat)
        if row.booked.over_limit or more_msat <= 0:
            return [], row.booked.over_limit
        prices_micro = await read_prices_micro(conn, self._limits, [owner], "deposit")
        try:
            return await counts_of(conn, self._limits, owner, "deposit", more_msat, prices_micro), False
        except Refused:  # there never was a price in a currency of its limits
            return [], True

    async def _charge(self, conn: Connection, row: DepositRow, owner: Payer) -> Charge:
        """By the rules in force now, or by those of its first credit."""
        level, version = row.booked.fee_level, row.booked.fee_version
        if level is None or version is None:
            level, version = owner.level, owner.fees_version
        return await self._fees.charge(conn, "deposit", row.amount_msat, level=level, version=version)


async def _is_taken(conn: Connection, posting: Posting, unless: tuple[str, ...]) -> bool:
    """Whether the books took it. False for a refusal with one of these codes, which leaves no trace."""
    try:
        async with conn.transaction():
            await post_new_in_tx(conn, posting)
    except Refused as refused:
        if refused.code not in unless:
            raise
        return False
    return True
