"""Withdrawals in schema `bank` as SQLModel classes: what users ask for, and the payouts that pay it. See `bank.py`."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Column, ForeignKeyConstraint, LargeBinary, SmallInteger
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from engine.views.table.bank import BANK, moment, text
from engine.views.table.bank import number as large
from engine.views.table.chain import flag, small


class PayoutRow(SQLModel, table=True):
    """One transaction of the hot wallet that pays withdrawals, with all its versions."""

    __tablename__: ClassVar[Any] = "payouts"
    __table_args__ = BANK

    id: str = text(primary_key=True)
    wallet: str = text("bank.chains.wallet")
    kind: str = text()
    speed: str = text()
    alone: bool = flag()
    unlinked: bool = flag()
    coins_gone: bool = flag()
    status: str = text()
    parent_id: str | None = text("bank.payouts.id", nullable=True)
    estimate: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    on_hold: bool = flag()
    problem: str | None = text(nullable=True)
    fee_booked_sat: int = large()
    bookings: int = small()
    booked_ref: str | None = text(nullable=True, unique=True)
    bump_to_sat_kvb: int | None = large(nullable=True)
    confirmed_version: int | None = small(nullable=True)
    block_height: int | None = small(nullable=True)
    workflow_id: str = text()
    created_at: datetime = moment()
    broadcast_at: datetime | None = moment(nullable=True)
    confirmed_at: datetime | None = moment(nullable=True)
    final_at: datetime | None = moment(nullable=True)


class PayoutVersion(SQLModel, table=True):
    """A transaction of a payout, as planned, unsigned and signed."""

    __tablename__: ClassVar[Any] = "payout_versions"
    __table_args__ = BANK

    payout_id: str = text("bank.payouts.id", primary_key=True)
    number: int = small(primary_key=True)
    kind: str = text()
    rate_sat_kvb: int = large()
    fee_sat: int = large()
    weight: int = small()
    change_sat: int = large()
    change_vout: int | None = small(nullable=True)
    change_address: str | None = text(nullable=True)
    psbt: str | None = text(nullable=True)
    raw: str | None = text(nullable=True)
    txid: str | None = text(nullable=True, unique=True)
    refused: str | None = text(nullable=True)
    created_at: datetime = moment()
    signed_at: datetime | None = moment(nullable=True)
    broadcast_at: datetime | None = moment(nullable=True)


class PayoutInput(SQLModel, table=True):
    """A coin that a version of a payout spends."""

    __tablename__: ClassVar[Any] = "payout_inputs"
    __table_args__: ClassVar[Any] = (
        ForeignKeyConstraint(
            ["payout_id", "number"], ["bank.payout_versions.payout_id", "bank.payout_versions.number"]
        ),
        BANK,
    )

    payout_id: str = text(primary_key=True)
    number: int = small(primary_key=True)
    txid: str = text(primary_key=True)
    vout: int = small(primary_key=True)
    amount_sat: int = large()
    place: int = small()


class CoinReservation(SQLModel, table=True):
    """A coin that is promised to a payout."""

    __tablename__: ClassVar[Any] = "coin_reservations"
    __table_args__ = BANK

    txid: str = text(primary_key=True)
    vout: int = small(primary_key=True)
    payout_id: str = text("bank.payouts.id")
    made_at: datetime = moment()


class WithdrawalRow(SQLModel, table=True):
    """What a user asks to be paid on chain."""

    __tablename__: ClassVar[Any] = "withdrawals"
    __table_args__ = BANK

    id: str = text(primary_key=True)
    account_id: str = text("bank.accounts.id")
    wallet_id: str = text("bank.wallets.id")
    address: str = text()
    script: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    payee_wallet_id: str | None = text("bank.wallets.id", nullable=True)
    amount_sat: int = large()
    fee_from: str = text()
    send_all: bool = flag()
    speed: str = text()
    alone: bool = flag()
    unlinked: bool = flag()
    max_fee_sat: int = large()
    held_msat: int = large()
    service_fee_msat: int = large()
    fee_version: int = small()
    fee_level: int = Field(sa_column=Column(SmallInteger, nullable=False))
    status: str = text()
    approval: str | None = text(nullable=True)
    approve_until: datetime | None = moment(nullable=True)
    on_hold: bool = flag()
    waits_for: str | None = text(nullable=True)
    payout_id: str | None = text("bank.payouts.id", nullable=True)
    place: int | None = small(nullable=True)
    vout: int | None = small(nullable=True)
    paid_sat: int | None = large(nullable=True)
    miner_fee_sat: int | None = large(nullable=True)
    failure_code: str | None = text(nullable=True)
    failure_detail: str | None = text(nullable=True)
    memo: str | None = text(nullable=True)
    external_id: str | None = text(nullable=True)
    workflow_id: str = text()
    created_at: datetime = moment()
    sealed_at: datetime | None = moment(nullable=True)
    broadcast_at: datetime | None = moment(nullable=True)
    ended_at: datetime | None = moment(nullable=True)


class WithdrawalDecision(SQLModel, table=True):
    """What operators decide about a withdrawal or a payout."""

    __tablename__: ClassVar[Any] = "withdrawal_decisions"
    __table_args__ = BANK

    id: str = text(primary_key=True)
    withdrawal_id: str | None = text("bank.withdrawals.id", nullable=True)
    payout_id: str | None = text("bank.payouts.id", nullable=True)
    kind: str = text()
    amount_sat: int = large()
    rate_sat_kvb: int | None = large(nullable=True)
    operators: int = small()
    reason: str = text()
    status: str = text()
    proposed_by: str = text()
    decided_by: str | None = text(nullable=True)
    note: str | None = text(nullable=True)
    created_at: datetime = moment()
    decided_at: datetime | None = moment(nullable=True)
