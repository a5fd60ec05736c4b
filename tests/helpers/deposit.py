"""Deposits without bitcoind: rows as the pump writes them, moved through the books with the real postings."""

import hashlib
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from engine.bank.chain import receivable
from engine.bank.chain.deposit import DepositRow, get_rows_in_tx, write_booked_in_tx
from engine.domain.deposit import DepositStatus, Place
from engine.domain.fee import Charge
from engine.domain.ids import AccountId, DepositId, WalletId, new_id
from engine.domain.limit import Count
from engine.domain.money import Msat
from engine.ledger import chart
from engine.ledger.account import get_account_id
from engine.ledger.book import Leg
from engine.ledger.database import Connection, Pool, transaction
from engine.ledger.postings import deposit as posting
from engine.ledger.store import post_in_tx
from engine.views.balance import get_balance, list_entries
from tests.helpers.api import User

_numbers = itertools.count(1)

_ROW = """
INSERT INTO bank.deposits (id, txid, vout, address, wallet_id, account_id, amount_sat, status, sight, required, deep,
       below_minimum, workflow_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'mempool', 3, 6, $9, $10)"""


@dataclass
class Depositor:
    """Writes what the chain shows, and books it as the workflow of a deposit does."""

    pool: Pool
    ids: chart.Chart = field(default_factory=chart.Chart)

    async def reach(self, height: int, *, problem: str | None = None) -> None:
        """The tip is at this height."""
        async with transaction(self.pool) as conn:
            await conn.execute(
                """INSERT INTO bank.chains (wallet, network, anchor_height, anchor_hash, tip_height, tip_hash, tip_work)
                   VALUES ('hot', 'regtest', 0, repeat('0', 64), 0, repeat('0', 64), repeat('0', 64))
                   ON CONFLICT DO NOTHING"""
            )
            await conn.execute(
                "UPDATE bank.chains SET tip_height = $1, problem = $2, reported_at = clock_timestamp()", height, problem
            )

    async def see(
        self,
        user: User | None,
        amount_sat: int,
        *,
        address: str = "bcrt1qsomebody",
        below_minimum: bool = False,
        over_limit: bool = False,
        counts: tuple[Count, ...] = (),
    ) -> DepositId:
        """In the mempool: incoming, if it is somebody's and may be credited."""
        found = DepositId(new_id("dep"))
        number = next(_numbers)
        status = DepositStatus.BELOW_MINIMUM if below_minimum else DepositStatus.PENDING
        async with transaction(self.pool) as conn:
            await conn.execute(
                _ROW,
                found,
                hashlib.sha256(f"{found}".encode()).hexdigest(),
                number % 3,
                address,
                user.wallet_id if user else None,
                user.id if user else None,
                amount_sat,
                str(status),
                below_minimum,
                f"deposit-{number}",
            )
            (row,) = await get_rows_in_tx(conn, [found])
            if user is not None and not below_minimum and not over_limit:
                row = await self._hold(conn, row, counts)
            await write_booked_in_tx(conn, [row.now_booked(over_limit=over_limit)])
        return found

    async def credit(self, found: DepositId, height: int, *, charge: Charge | None = None) -> None:
        """Deep enough in this block: in the wallet, after what its owner owes for it."""
        async with transaction(self.pool) as conn:
            row = await self._move(conn, found, height)
            owed = await receivable.list_open_in_tx(conn, found)
            for each in owed:
                await receivable.end_in_tx(conn, each.id, "repaid", by=row.workflow_id)
            row = await self._book(conn, row, "wallet", charge, Msat(sum(each.amount_msat for each in owed)))
            row = row.now_booked(status=DepositStatus.CREDITED, credited_at=datetime.now(UTC), **_fee(charge))
            await write_booked_in_tx(conn, [row])

    async def park(self, found: DepositId, height: int) -> None:
        """Deep enough in this block, and not for the wallet."""
        async with transaction(self.pool) as conn:
            row = await self._move(conn, found, height)
            is_ours = row.booked.wallet_id is not None
            row = await self._book(conn, row, "pending" if is_ours else "suspense", None, Msat(0))
            status = DepositStatus.BELOW_MINIMUM if row.below_minimum else DepositStatus.HELD
            row = row.now_booked(status=status if is_ours else DepositStatus.UNATTRIBUTED)
            await write_booked_in_tx(conn, [row])

    async def release(self, found: DepositId, *, to: User, charge: Charge | None = None) -> None:
        """Two operators have decided that it goes to this user."""
        async with transaction(self.pool) as conn:
            (row,) = await get_rows_in_tx(conn, [found])
            assert row.booked.place in ("pending", "suspense")
            made = posting.released(
                await self.ids.load(conn),
                row.deposited,
                place=row.booked.place,
                owner=await _account(conn, WalletId(to.wallet_id)),
                charge=charge,
                number=row.booked.confs,
                actor="operators",
            )
            await post_in_tx(conn, made)
            owner = {"wallet_id": WalletId(to.wallet_id), "account_id": AccountId(to.id)}
            row = row.now_booked(release_ref=made.ref, **owner, **_fee(charge))
            await write_booked_in_tx(
                conn, [row.now_booked(status=DepositStatus.CREDITED, credited_at=datetime.now(UTC))]
            )

    async def take_back(self, found: DepositId) -> int:
        """A reorganisation: what is left of it in the wallet goes back, the rest is owed; gives the rest, in msat."""
        async with transaction(self.pool) as conn:
            row = await self._move(conn, found, None)
            ids, booked = await self.ids.load(conn), row.booked
            owner = await _account(conn, booked.wallet_id) if booked.wallet_id else None
            owed_msat = 0
            for ref in [ref for ref in (booked.release_ref, booked.conf_ref) if ref is not None]:
                legs = [
                    Leg(each.account_id, each.amount_msat)
                    for each in await list_entries(conn, ref)
                    if each.layer == "settled"
                ]
                credited_msat = -sum(leg.amount_msat for leg in legs if leg.account_id == owner)
                available_msat = (await get_balance(conn, owner)).available_msat if owner is not None else 0
                pays_msat = min(credited_msat, available_msat)
                made = posting.taken_back(
                    row.deposited, ids, of=ref, legs=legs, owner=owner, owner_pays_msat=Msat(pays_msat)
                )
                await post_in_tx(conn, made)
                owed_msat += credited_msat - pays_msat
                if credited_msat > pays_msat:
                    await receivable.add_in_tx(
                        conn,
                        deposit=found,
                        account=AccountId(str(booked.account_id)),
                        wallet=WalletId(str(booked.wallet_id)),
                        amount_msat=Msat(credited_msat - pays_msat),
                        ref=made.ref,
                    )
            unbooked = {"conf_ref": None, "place": None, "release_ref": None, **_fee(None)}
            await write_booked_in_tx(conn, [row.now_booked(status=DepositStatus.REVERSED, **unbooked)])
        return owed_msat

    async def show_again(self, found: DepositId) -> None:
        """It was taken back, and is incoming again."""
        async with transaction(self.pool) as conn:
            (row,) = await get_rows_in_tx(conn, [found])
            await write_booked_in_tx(conn, [await self._hold(conn, row, ())])

    async def drop(self, found: DepositId) -> None:
        """Neither in a block nor in the mempool."""
        async with transaction(self.pool) as conn:
            await conn.execute("UPDATE bank.deposits SET sight = 'gone' WHERE id = $1", found)
            (row,) = await get_rows_in_tx(conn, [found])
            assert row.booked.hold_ref is not None
            await post_in_tx(conn, posting.dropped(row.deposited, hold=row.booked.hold_ref, number=row.booked.holds))
            await write_booked_in_tx(conn, [row.now_booked(status=DepositStatus.DROPPED, hold_ref=None)])

    async def finish(self, found: DepositId) -> None:
        """Deep enough to be left alone."""
        async with transaction(self.pool) as conn:
            (row,) = await get_rows_in_tx(conn, [found])
            await write_booked_in_tx(conn, [row.now_booked(final_at=datetime.now(UTC))])

    async def _move(self, conn: Connection, found: DepositId, height: int | None) -> DepositRow:
        await conn.execute(
            """UPDATE bank.deposits SET sight = CASE WHEN $2::int IS NULL THEN 'mempool' ELSE 'mined' END,
                      block_height = $2, block_hash = CASE WHEN $2::int IS NOT NULL THEN repeat('b', 64) END
                WHERE id = $1""",
            found,
            height,
        )
        (row,) = await get_rows_in_tx(conn, [found])
        return row

    async def _hold(self, conn: Connection, row: DepositRow, counts: tuple[Count, ...]) -> DepositRow:
        assert row.booked.wallet_id is not None
        number, owner = row.booked.holds + 1, await _account(conn, row.booked.wallet_id)
        made = posting.seen(await self.ids.load(conn), row.deposited, owner=owner, number=number, counts=counts)
        await post_in_tx(conn, made)
        return row.now_booked(hold_ref=made.ref, holds=number, status=DepositStatus.PENDING)

    async def _book(
        self, conn: Connection, row: DepositRow, place: Place, charge: Charge | None, repaid_msat: Msat
    ) -> DepositRow:
        number = row.booked.confs + 1
        made = posting.booked(
            await self.ids.load(conn),
            row.deposited,
            place=place,
            owner=await _account(conn, row.booked.wallet_id) if row.booked.wallet_id else None,
            charge=charge,
            repaid_msat=repaid_msat,
            number=number,
            hold=row.booked.hold_ref,
        )
        await post_in_tx(conn, made)
        return row.now_booked(hold_ref=None, conf_ref=made.ref, confs=number, place=place)


def _fee(charge: Charge | None) -> dict[str, Any]:
    if charge is None:
        return {"fee_msat": Msat(0), "fee_version": None, "fee_level": None}
    return {"fee_msat": charge.fee_msat, "fee_version": charge.version, "fee_level": charge.level}


async def _account(conn: Connection, wallet_id: WalletId) -> int:
    return await get_account_id(conn, chart.user(wallet_id))
