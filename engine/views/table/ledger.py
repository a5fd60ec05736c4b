"""Schema `ledger` as SQLModel classes: a typed description of each row, for readers and tests.

The migrations are the truth; a test compares each class with the migrated database, column by column. No process
imports these classes (decision 0043), and the database refuses to post through them: see `engine/ledger/store.py`.
"""

from datetime import date, datetime
from typing import Any, ClassVar

from sqlalchemy import ARRAY, BigInteger, Column, Computed, DateTime, ForeignKey, LargeBinary, SmallInteger, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

_LEDGER: dict[str, Any] = {"schema": "ledger"}
_NORMAL = "CASE WHEN kind IN ('asset', 'expense') THEN 1 ELSE -1 END"
_AVAILABLE = "normal * settled - CASE normal WHEN 1 THEN held_cr ELSE held_dr END"


def _moment(*, nullable: bool = False, primary_key: bool = False) -> Any:  # noqa: ANN401 - what Field gives
    return Field(sa_column=Column(DateTime(timezone=True), nullable=nullable, primary_key=primary_key))


def _to(target: str, *, primary_key: bool = False, nullable: bool = False) -> Any:  # noqa: ANN401 - what Field gives
    return Field(sa_column=Column(BigInteger, ForeignKey(target), primary_key=primary_key, nullable=nullable))


class Account(SQLModel, table=True):
    """A place where money is, or a reason why it moved. Never changed; `normal` is +1 where debits add."""

    __tablename__: ClassVar[Any] = "accounts"
    __table_args__ = _LEDGER

    id: int = Field(sa_type=BigInteger, primary_key=True)
    code: str = Field(sa_type=Text, unique=True)
    kind: str = Field(sa_type=Text)
    currency: str = Field(sa_type=Text)
    normal: int = Field(sa_column=Column(SmallInteger, Computed(_NORMAL, persisted=True), nullable=False))
    floor: int | None = Field(sa_type=BigInteger)
    mode: str = Field(sa_type=Text)
    opened_at: datetime = _moment()


class Balance(SQLModel, table=True):
    """The running sums of a locked account, debit +. Changed by `ledger.post` only."""

    __tablename__: ClassVar[Any] = "balances"
    __table_args__ = _LEDGER

    account_id: int = _to("ledger.accounts.id", primary_key=True)
    normal: int = Field(sa_type=SmallInteger)
    floor: int | None = Field(sa_type=BigInteger)
    settled: int = Field(sa_type=BigInteger)
    held_dr: int = Field(sa_type=BigInteger)
    held_cr: int = Field(sa_type=BigInteger)
    available: int = Field(sa_column=Column(BigInteger, Computed(_AVAILABLE, persisted=True), nullable=False))
    version: int = Field(sa_type=BigInteger)
    frozen: bool
    closed: bool


class Transfer(SQLModel, table=True):
    """One business event, named by its outside reference. Never changed."""

    __tablename__: ClassVar[Any] = "transfers"
    __table_args__ = _LEDGER

    id: int = Field(sa_type=BigInteger, primary_key=True)
    external_ref: str = Field(sa_type=Text, unique=True)
    payload_hash: bytes = Field(sa_type=LargeBinary)
    template: str = Field(sa_type=Text)
    phase: str = Field(sa_type=Text)
    actor: str = Field(sa_type=Text)
    workflow_id: str | None = Field(sa_type=Text)
    description: str | None = Field(sa_type=Text)
    facts: dict[str, Any] = Field(sa_column=Column("metadata", JSONB, nullable=False))
    effective_on: date
    expires_at: datetime | None = _moment(nullable=True)
    counts_account_id: int | None = _to("ledger.accounts.id", nullable=True)
    count_kinds: list[str] | None = Field(sa_column=Column(ARRAY(Text), nullable=True))
    count_amounts: list[int] | None = Field(sa_column=Column(ARRAY(BigInteger), nullable=True))
    received_at: datetime = _moment()


class Resolution(SQLModel, table=True):
    """Which transfer settled, voided, expired or reversed which other. Each is resolved at most once."""

    __tablename__: ClassVar[Any] = "resolutions"
    __table_args__ = _LEDGER

    target_id: int = _to("ledger.transfers.id", primary_key=True)
    transfer_id: int = _to("ledger.transfers.id")


class Entry(SQLModel, table=True):
    """One leg of a transfer on one layer (0 settled, 1 held), debit +. Never changed."""

    __tablename__: ClassVar[Any] = "entries"
    __table_args__ = _LEDGER

    seq: int = Field(sa_type=BigInteger, primary_key=True)
    transfer_id: int = _to("ledger.transfers.id")
    account_id: int = _to("ledger.accounts.id")
    currency: str = Field(sa_type=Text)
    layer: int = Field(sa_type=SmallInteger)
    amount: int = Field(sa_type=BigInteger)
    balance_after: int | None = Field(sa_type=BigInteger)
    version: int | None = Field(sa_type=BigInteger)
    posted_at: datetime = _moment()


class Counter(SQLModel, table=True):
    """What counted towards limits in one bucket, a 96th of a window; in the unit of the kind."""

    __tablename__: ClassVar[Any] = "counters"
    __table_args__ = _LEDGER

    account_id: int = _to("ledger.accounts.id", primary_key=True)
    kind: str = Field(sa_type=Text, primary_key=True)
    window_s: int = Field(primary_key=True)
    bucket: datetime = _moment(primary_key=True)
    amount: int = Field(sa_type=BigInteger)


class ClosingTime(SQLModel, table=True):
    """A moment up to which the books are closed. Never changed."""

    __tablename__: ClassVar[Any] = "closing_times"
    __table_args__ = _LEDGER

    at: datetime = _moment(primary_key=True)
    last_seq: int = Field(sa_type=BigInteger)
    closed_at: datetime = _moment()


class Closing(SQLModel, table=True):
    """What an account had at a closing, debit +. Never changed."""

    __tablename__: ClassVar[Any] = "closings"
    __table_args__ = _LEDGER

    account_id: int = _to("ledger.accounts.id", primary_key=True)
    at: datetime = Field(
        sa_column=Column(DateTime(timezone=True), ForeignKey("ledger.closing_times.at"), primary_key=True)
    )
    settled: int = Field(sa_type=BigInteger)
    held: int = Field(sa_type=BigInteger)
