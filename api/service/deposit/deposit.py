"""Deposits of an account: what has come in on chain, and what is on its way. The use cases, for any door."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from api.service.auth import Caller
from api.service.resources import Resources
from engine.bank.fee_schedule import FeeBook
from engine.bank.limit import find_payer
from engine.domain.deposit import depth
from engine.domain.errors import no_such
from engine.domain.ids import AccountId
from engine.domain.money import msat_to_sat_floor, sat_to_msat
from engine.domain.page import START, Position, Slice
from engine.ledger.database import Connection
from engine.views.deposit import DepositFilter, find_deposit, read_deposits

DepositStatus = Literal["pending", "credited", "reversed", "dropped", "below_minimum", "held"]
_STATUSES = (
    "`pending`: seen, and not confirmed often enough yet; the amount is in the wallet's `incoming_msat`. "
    "`credited`: in the wallet. "
    "`reversed`: was credited, and a reorganisation of the chain took it back; it is credited again if its transaction "
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
        description="Our fee, deducted from the amount. Before the deposit is credited: what it would be now."
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
        found = await read_deposits(conn, caller.account_id, wanted, after, limit)
        return Slice(await _shown(conn, caller.account_id, found.rows), found.following)


async def show_deposit(resources: Resources, caller: Caller, deposit_id: str) -> DepositOut:
    """One deposit of the caller's account. Raises NotFound."""
    caller.require("read")
    async with resources.reading() as conn:
        row = await find_deposit(conn, caller.account_id, deposit_id)
        if row is None:
            raise no_such("deposit")
        (shown,) = await _shown(conn, caller.account_id, [row])
    return shown


async def _shown(conn: Connection, account_id: AccountId, rows: Sequence[Mapping[str, Any]]) -> list[DepositOut]:
    payer = await find_payer(conn, account_id, None, None) if rows else None
    fees = FeeBook()
    shown: list[DepositOut] = []
    for row in rows:
        known = {**row}
        fee_msat, version, level = (known.pop(name) for name in ("fee_msat", "fee_version", "fee_level"))
        tip_height, required = known.pop("tip_height"), known.pop("required")
        if known["status"] != "credited" and payer is not None:
            # As it will be booked: by the rules of its first credit, if there was one.
            rule = {"version": payer.fees_version, "level": payer.level} if version is None else {}
            rule = rule or {"version": version, "level": level}
            fee_msat = (await fees.charge(conn, "deposit", sat_to_msat(known["amount_sat"]), **rule)).fee_msat
        shown.append(
            DepositOut(
                **known,
                fee_sat=msat_to_sat_floor(fee_msat),
                confirmations=depth(known["block_height"], tip_height or 0),
                confirmations_required=required,
            )
        )
    return shown
