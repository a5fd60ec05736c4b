"""The row of a deposit, for whoever books it: read under its lock, and written with what was booked.

The facts of the chain in the same row are written by the pump (`sighting.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from engine.domain.deposit import Deposited, DepositStatus, Facts, Outpoint, Place, Sight
from engine.domain.errors import InvariantBroken
from engine.domain.ids import AccountId, DepositId, Txid, WalletId
from engine.domain.money import Msat, Sat, sat_to_msat
from engine.ledger.database import Connection, change_rows, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """What the books have of a deposit: the columns that change with a posting."""

    status: DepositStatus
    wallet_id: WalletId | None
    account_id: AccountId | None
    hold_ref: str | None
    holds: int
    over_limit: bool
    conf_ref: str | None
    confs: int
    place: Place | None
    release_ref: str | None
    fee_msat: Msat
    fee_version: int | None
    fee_level: int | None
    counted_msat: Msat
    """What its credits have counted towards limits. A reversal gives nothing of it back."""
    alone: bool
    credited_at: datetime | None
    final_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositRow:
    """A deposit: what the chain shows of it, and what the books have."""

    id: DepositId
    txid: Txid
    vout: int
    address: str
    amount_sat: Sat
    sight: Sight
    block_height: int | None
    required: int
    deep: int
    below_minimum: bool
    workflow_id: str
    now: datetime
    """The database's clock when the row was read."""
    booked: Booked

    @property
    def outpoint(self) -> Outpoint:
        """The output as it stands now: a replacement has another one."""
        return Outpoint(txid=self.txid, vout=self.vout)

    @property
    def amount_msat(self) -> Msat:
        """What the output pays."""
        return sat_to_msat(self.amount_sat)

    @property
    def deposited(self) -> Deposited:
        """What its postings need."""
        return Deposited(id=self.id, outpoint=self.outpoint, amount_msat=self.amount_msat, workflow_id=self.workflow_id)

    @property
    def facts(self) -> Facts:
        """What decides its next step."""
        booked = self.booked
        return Facts(
            sight=self.sight,
            block_height=self.block_height,
            required=self.required,
            deep=self.deep,
            below_minimum=self.below_minimum,
            has_owner=booked.wallet_id is not None,
            hold_ref=booked.hold_ref,
            hold_is_of_this=self._is_of_this(booked.hold_ref),
            is_booked=booked.conf_ref is not None,
            booking_is_of_this=self._is_of_this(booked.conf_ref),
            is_final=booked.final_at is not None,
            status=booked.status,
        )

    def _is_of_this(self, ref: str | None) -> bool:
        return ref is not None and ref.startswith(f"chain:{self.outpoint}:")

    def now_booked(self, **changes: object) -> "DepositRow":
        """The same row after a posting."""
        return replace(self, booked=replace(self.booked, **changes))  # type: ignore[arg-type]


_COLUMNS = """id, txid, vout, address, amount_sat, sight, block_height, required, deep, below_minimum, workflow_id,
    status, wallet_id, account_id, hold_ref, holds, over_limit, conf_ref, confs, place, release_ref, fee_msat,
    fee_version, fee_level, counted_msat, alone, credited_at, final_at, clock_timestamp() AS now"""
_OF_BOOKS = tuple(Booked.__dataclass_fields__)


async def get_rows_in_tx(conn: Connection, deposits: Sequence[DepositId]) -> list[DepositRow]:
    """These deposits, locked until the transaction ends, in the order of their ids. Raises InvariantBroken."""
    with translated():
        rows = await conn.fetch(
            f"SELECT {_COLUMNS} FROM bank.deposits WHERE id = ANY($1) ORDER BY id FOR UPDATE",  # noqa: S608 - constant
            list(deposits),
        )
    if len(rows) != len(set(deposits)):
        raise InvariantBroken("a deposit has no row")
    return [_read(dict(row)) for row in rows]


async def write_booked_in_tx(conn: Connection, rows: Sequence[DepositRow]) -> None:
    """Write what is booked now of these rows, which this transaction has locked."""
    await change_rows(
        conn,
        len(rows),
        """UPDATE bank.deposits d SET status = b.status, wallet_id = b.wallet_id, account_id = b.account_id,
               hold_ref = b.hold_ref, holds = b.holds, over_limit = b.over_limit, conf_ref = b.conf_ref,
               confs = b.confs, place = b.place, release_ref = b.release_ref, fee_msat = b.fee_msat,
               fee_version = b.fee_version, fee_level = b.fee_level, counted_msat = b.counted_msat, alone = b.alone,
               credited_at = b.credited_at, final_at = b.final_at
          FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::boolean[], $8::text[],
                      $9::int[], $10::text[], $11::text[], $12::bigint[], $13::int[], $14::smallint[], $15::bigint[],
                      $16::boolean[], $17::timestamptz[], $18::timestamptz[])
               AS b(id, status, wallet_id, account_id, hold_ref, holds, over_limit, conf_ref, confs, place, release_ref,
                    fee_msat, fee_version, fee_level, counted_msat, alone, credited_at, final_at)
         WHERE d.id = b.id""",
        [row.id for row in rows],
        *([getattr(row.booked, name) for row in rows] for name in _OF_BOOKS),
    )


def _read(columns: dict[str, object]) -> DepositRow:
    booked = {name: columns.pop(name) for name in _OF_BOOKS}
    booked["status"] = DepositStatus(str(booked["status"]))
    columns["sight"] = Sight(str(columns["sight"]))
    return DepositRow(**columns, booked=Booked(**booked))  # type: ignore[arg-type]
