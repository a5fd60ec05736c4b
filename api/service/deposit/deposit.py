"""Deposits of an account: what has come in on chain, and what is on its way. The use cases, for any door."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from api.service.auth import Caller
from api.service.resources import Resources
from engine.bank.limit import find_payer
from engine.bank.rulebook import find_edition
from engine.domain.deposit import depth
from engine.domain.errors import InvariantBroken, no_such
from engine.domain.fee import FeeSchedule, fee, parse_schedule
from engine.domain.ids import AccountId
from engine.domain.money import Msat, Sat, msat_to_sat_floor, sat_to_msat
from engine.domain.page import START, Position, Slice
from engine.ledger.database import Connection
from engine.views import deposit as view
from engine.views.deposit import DepositFilter

DepositStatus = Literal["pending", "credited", "reversed", "dropped", "below_minimum", "held"]
_STATUSES = (
    "`pending`: seen, and not confirmed often enough yet; the amount is in the wallet's `incoming_msat`. "
    "`credited`: in the wallet. "
    "`reversed`: was credited, and a reorganisation of the chain took it back; it is credited again if the transaction "
    "is confirmed again. "
    "`dropped`: the transaction was replaced by another, or left the mempool; nothing is incoming, and it may return. "
    "`below_minimum`: received, but too small to be credited. "
    "`held`: received, but above a limit of the account; an operator decides."
)


class DepositOut(BaseModel):
    """One output of a transaction that pays an address of the wallet."""

    id: str
    wallet_id: str
    txid: str = Field(description="It changes when the transaction is replaced by another that pays the same address.")
    vout: int
    address: str
    amount_sat: int
    fee_sat: int = Field(
        description="Our fee, deducted from the amount. Before the deposit is credited: the fee by the schedule in "
        "force now."
    )
    confirmations: int = Field(description="1 in the newest block, 0 outside of the chain.")
    confirmations_required: int = Field(description="The deposit is credited with so many.")
    status: DepositStatus = Field(description=_STATUSES)
    block_height: int | None = Field(description="The block of the transaction; null outside of the chain.")
    created_at: datetime = Field(description="When it was first seen.")
    credited_at: datetime | None
    receivable_msat: int | None = Field(
        description="What had been spent of it when it was taken back, and is still owed; null: nothing."
    )
    workflow_id: str


async def list_deposits(
    resources: Resources, caller: Caller, wanted: DepositFilter, *, after: Position = START, limit: int
) -> Slice[DepositOut]:
    """One page of the deposits of the caller's account, newest first."""
    caller.require("read")
    async with resources.reading() as conn:
        found = await view.list_deposits(conn, caller.account_id, wanted, after, limit)
        fees = await _fees_to_come(conn, caller.account_id, found.rows)
    return found.map(lambda row: _shown(row, fees))


async def show_deposit(resources: Resources, caller: Caller, deposit_id: str) -> DepositOut:
    """One deposit of the caller's account. Raises NotFound."""
    caller.require("read")
    async with resources.reading() as conn:
        row = await view.find_deposit(conn, caller.account_id, deposit_id)
        if row is None:
            raise no_such("deposit")
        return _shown(row, await _fees_to_come(conn, caller.account_id, [row]))


class _Fees:
    """Our fee for a deposit that is not credited yet, by the schedule in force."""

    def __init__(self, schedule: FeeSchedule, level: int) -> None:
        self._schedule, self._level = schedule, level

    def of(self, amount_sat: Sat) -> Msat:
        """For an amount."""
        return fee(self._schedule, "deposit", sat_to_msat(amount_sat), self._level)


async def _fees_to_come(conn: Connection, account_id: AccountId, rows: Iterable[Mapping[str, Any]]) -> _Fees | None:
    """None where each of the rows is credited, so that its fee is known."""
    if all(row["status"] == "credited" for row in rows):
        return None
    payer = await find_payer(conn, account_id, None, None)
    edition = None if payer is None else await find_edition(conn, "fees", payer.fees_version)
    if payer is None or edition is None:
        raise InvariantBroken(f"{account_id} has no wallet, or there is no schedule of fees")
    return _Fees(parse_schedule(edition.content), payer.level)


def _shown(row: Mapping[str, Any], fees: _Fees | None) -> DepositOut:
    known = {**row}
    booked_msat, tip_height, required = (known.pop(name) for name in ("fee_msat", "tip_height", "required"))
    fee_msat = fees.of(known["amount_sat"]) if fees is not None and known["status"] != "credited" else booked_msat
    return DepositOut(
        **known,
        fee_sat=msat_to_sat_floor(fee_msat),
        confirmations=depth(known["block_height"], tip_height or 0),
        confirmations_required=required,
    )
