"""The chain in schema `bank` as SQLModel classes: blocks, deposits, receivables and coins. See `bank.py`."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Boolean, Column, ForeignKeyConstraint, Integer, SmallInteger
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from engine.views.table.bank import BANK, moment, number, text


def small(*, nullable: bool = False, primary_key: bool = False) -> Any:  # noqa: ANN401 - what Field gives
    """A 32-bit number."""
    return Field(sa_column=Column(Integer, nullable=nullable, primary_key=primary_key, autoincrement=False))


def flag() -> Any:  # noqa: ANN401 - what Field gives
    """Yes or no."""
    return Field(sa_column=Column(Boolean, nullable=False))


class Chain(SQLModel, table=True):
    """The hot wallet, and the chain as its pump last saw it."""

    __tablename__: ClassVar[Any] = "chains"
    __table_args__ = BANK

    wallet: str = text(primary_key=True)
    network: str = text()
    anchor_height: int = small()
    anchor_hash: str = text()
    tip_height: int = small()
    tip_hash: str = text()
    tip_work: str = text()
    epoch: int = number()
    adopted_height: int = small()
    rescan_from: int | None = small(nullable=True)
    rescans: int = small()
    scan_from: int | None = small(nullable=True)
    problem: str | None = text(nullable=True)
    pool_problem: str | None = text(nullable=True)
    report: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    reported_at: datetime = moment()
    adopted_at: datetime = moment()


class ChainBlock(SQLModel, table=True):
    """A block that the pump has followed."""

    __tablename__: ClassVar[Any] = "blocks"
    __table_args__ = BANK

    wallet: str = text("bank.chains.wallet", primary_key=True)
    height: int = small(primary_key=True)
    hash: str = text()


class DepositRow(SQLModel, table=True):
    """A payment to an address of ours: what the chain shows of it, and what the books have of it."""

    __tablename__: ClassVar[Any] = "deposits"
    __table_args__ = BANK

    id: str = text(primary_key=True)
    txid: str = text()
    vout: int = small()
    address: str = text()
    wallet_id: str | None = text("bank.wallets.id", nullable=True)
    account_id: str | None = text("bank.accounts.id", nullable=True)
    amount_sat: int = number()
    coinbase: bool = flag()
    status: str = text()
    sight: str = text()
    block_height: int | None = small(nullable=True)
    block_hash: str | None = text(nullable=True)
    required: int = small()
    deep: int = small()
    below_minimum: bool = flag()
    hold_ref: str | None = text(nullable=True, unique=True)
    holds: int = small()
    over_limit: bool = flag()
    conf_ref: str | None = text(nullable=True, unique=True)
    confs: int = small()
    place: str | None = text(nullable=True)
    release_ref: str | None = text(nullable=True, unique=True)
    fee_msat: int = number()
    fee_version: int | None = small(nullable=True)
    fee_level: int | None = Field(sa_column=Column(SmallInteger, nullable=True))
    counted_msat: int = number()
    alone: bool = flag()
    workflow_id: str = text()
    created_at: datetime = moment()
    credited_at: datetime | None = moment(nullable=True)
    final_at: datetime | None = moment(nullable=True)


class DepositOutpoint(SQLModel, table=True):
    """An outpoint that a deposit had before another transaction replaced its own."""

    __tablename__: ClassVar[Any] = "deposit_outpoints"
    __table_args__ = BANK

    txid: str = text(primary_key=True)
    vout: int = small(primary_key=True)
    deposit_id: str = text("bank.deposits.id")
    amount_sat: int = number()
    replaced_at: datetime = moment()


class ReceivableRow(SQLModel, table=True):
    """What a user had already spent of a deposit that a reorganisation took back."""

    __tablename__: ClassVar[Any] = "receivables"
    __table_args__ = BANK

    id: str = text(primary_key=True)
    deposit_id: str = text("bank.deposits.id")
    account_id: str = text("bank.accounts.id")
    wallet_id: str = text("bank.wallets.id")
    amount_msat: int = number()
    ref: str = text(unique=True)
    status: str = text()
    created_at: datetime = moment()
    ended_at: datetime | None = moment(nullable=True)
    ended_by: str | None = text(nullable=True)


class Coin(SQLModel, table=True):
    """An output of the hot wallet."""

    __tablename__: ClassVar[Any] = "coins"
    __table_args__ = BANK

    txid: str = text(primary_key=True)
    vout: int = small(primary_key=True)
    amount_sat: int = number()
    address: str | None = text(nullable=True)
    change: bool = flag()
    block_height: int | None = small(nullable=True)
    spent_by: str | None = text(nullable=True)
    spent_height: int | None = small(nullable=True)
    gone: bool = flag()
    opening: bool = flag()
    seen_at: datetime = moment()


class CoinOrigin(SQLModel, table=True):
    """An account from whose deposits a coin descends."""

    __tablename__: ClassVar[Any] = "coin_origins"
    __table_args__: ClassVar[Any] = (
        ForeignKeyConstraint(["txid", "vout"], ["bank.coins.txid", "bank.coins.vout"]),
        BANK,
    )

    txid: str = text(primary_key=True)
    vout: int = small(primary_key=True)
    account_id: str = text(primary_key=True)


class CoinSpend(SQLModel, table=True):
    """A transaction that was seen to spend an outpoint."""

    __tablename__: ClassVar[Any] = "coin_spends"
    __table_args__ = BANK

    txid: str = text(primary_key=True)
    vout: int = small(primary_key=True)
    spender: str = text(primary_key=True)
    block_height: int | None = small(nullable=True)
    gone: bool = flag()
    seen_at: datetime = moment()


class DepositDecision(SQLModel, table=True):
    """What two operators decide about a deposit."""

    __tablename__: ClassVar[Any] = "deposit_decisions"
    __table_args__ = BANK

    id: str = text(primary_key=True)
    deposit_id: str = text("bank.deposits.id")
    kind: str = text()
    wallet_id: str | None = text("bank.wallets.id", nullable=True)
    receivable_id: str | None = text("bank.receivables.id", nullable=True)
    amount_msat: int = number()
    reason: str = text()
    status: str = text()
    proposed_by: str = text()
    decided_by: str | None = text(nullable=True)
    note: str | None = text(nullable=True)
    ref: str | None = text(nullable=True, unique=True)
    created_at: datetime = moment()
    decided_at: datetime | None = moment(nullable=True)
