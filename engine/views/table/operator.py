"""What operators see, set and decide in schema `bank`, as SQLModel classes: the other part of `bank.py`."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Column
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from engine.views.table.bank import BANK, moment, number, text


class Reconciliation(SQLModel, table=True):
    """One run that compared the books with the places where the money is."""

    __tablename__: ClassVar[Any] = "reconciliations"
    __table_args__ = BANK

    id: str = text(primary_key=True)
    workflow_id: str = text()
    status: str = text()
    report: dict[str, Any] | None = Field(sa_column=Column(JSONB, nullable=True))
    created_at: datetime = moment()
    finished_at: datetime | None = moment(nullable=True)


class Agreement(SQLModel, table=True):
    """When a node and the books last agreed, and about which channels."""

    __tablename__: ClassVar[Any] = "agreements"
    __table_args__ = BANK

    node: str = text("bank.nodes.name", primary_key=True)
    channels: list[dict[str, Any]] = Field(sa_column=Column(JSONB, nullable=False))
    agreed_at: datetime = moment()


class Case(SQLModel, table=True):
    """A difference that a run found and that waits for an operator's explanation."""

    __tablename__: ClassVar[Any] = "cases"
    __table_args__ = BANK

    id: str = text(primary_key=True)
    kind: str = text()
    account: str = text()
    subject: str = text()
    amount_msat: int = number()
    detail: str = text()
    suspects: list[dict[str, Any]] = Field(sa_column=Column(JSONB, nullable=False))
    status: str = text()
    run: str = text("bank.reconciliations.id")
    last_seen: str = text("bank.reconciliations.id")
    vanished: bool
    note: str | None = text(nullable=True)
    resolved_by: str | None = text(nullable=True)
    resolved_at: datetime | None = moment(nullable=True)
    created_at: datetime = moment()


class CaseUpdate(SQLModel, table=True):
    """What happened to a case: append-only."""

    __tablename__: ClassVar[Any] = "case_updates"
    __table_args__ = BANK

    id: int = Field(sa_type=BigInteger, primary_key=True)
    case_id: str = text("bank.cases.id")
    event: str = text()
    actor: str = text()
    note: str = text()
    at: datetime = moment()


class Correction(SQLModel, table=True):
    """What two operators enter by hand: proposed, decided, posted."""

    __tablename__: ClassVar[Any] = "corrections"
    __table_args__ = BANK

    id: str = text(primary_key=True)
    kind: str = text()
    debit: str = text("ledger.accounts.code")
    credit: str = text("ledger.accounts.code")
    amount_msat: int = number()
    reason: str = text()
    case_id: str | None = text("bank.cases.id", nullable=True)
    reference: str | None = text(nullable=True)
    status: str = text()
    proposed_by: str = text()
    approved_by: str | None = text(nullable=True)
    rejected_by: str | None = text(nullable=True)
    refusal_code: str | None = text(nullable=True)
    refusal_detail: str | None = text(nullable=True)
    workflow_id: str = text()
    created_at: datetime = moment()
    expires_at: datetime = moment()
    decided_at: datetime | None = moment(nullable=True)
    ended_at: datetime | None = moment(nullable=True)


class CorrectionUpdate(SQLModel, table=True):
    """What happened to a correction: append-only."""

    __tablename__: ClassVar[Any] = "correction_updates"
    __table_args__ = BANK

    id: int = Field(sa_type=BigInteger, primary_key=True)
    correction_id: str = text("bank.corrections.id")
    event: str = text()
    actor: str = text()
    note: str = text()
    at: datetime = moment()


class Decision(SQLModel, table=True):
    """How two operators end a payment whose node cannot tell its end."""

    __tablename__: ClassVar[Any] = "decisions"
    __table_args__ = BANK

    id: str = text(primary_key=True)
    payment_id: str = text("bank.payments.id")
    payment_end: str = text()
    preimage: str | None = text(nullable=True)
    fee_msat: int = number()
    reason: str = text()
    status: str = text()
    proposed_by: str = text()
    decided_by: str | None = text(nullable=True)
    note: str | None = text(nullable=True)
    created_at: datetime = moment()
    decided_at: datetime | None = moment(nullable=True)


class AuditLine(SQLModel, table=True):
    """What an operator did: append-only."""

    __tablename__: ClassVar[Any] = "audit"
    __table_args__ = BANK

    id: int = Field(sa_type=BigInteger, primary_key=True)
    at: datetime = moment()
    operator: str = text()
    key_id: str = text()
    action: str = text()
    account_id: str | None = text(nullable=True)
    subject: str | None = text(nullable=True)
    detail: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))


class Rulebook(SQLModel, table=True):
    """One version of the fees or the limits: append-only."""

    __tablename__: ClassVar[Any] = "rulebooks"
    __table_args__ = BANK

    name: str = text(primary_key=True)
    version: int = Field(primary_key=True)
    content: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    note: str = text()
    set_by: str = text()
    created_at: datetime = moment()


class PriceRow(SQLModel, table=True):
    """What one bitcoin was worth in another currency, in millionths: append-only."""

    __tablename__: ClassVar[Any] = "prices"
    __table_args__ = BANK

    id: int = Field(sa_type=BigInteger, primary_key=True)
    currency: str = text()
    price_micro: int = number()
    source: str = text()
    at: datetime = moment()
