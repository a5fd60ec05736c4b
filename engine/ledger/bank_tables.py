"""Schema `bank` as SQLModel classes: for administration, and for people who want to know what there is.

The migrations are the truth; a test compares each class with the migrated database, column by column. Requests are
served by plain statements over asyncpg instead: making one of these objects takes as long as reading ten rows.
"""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import ARRAY, BigInteger, Column, DateTime, ForeignKey, LargeBinary, SmallInteger, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

_BANK: dict[str, Any] = {"schema": "bank"}


def _moment(*, nullable: bool = False) -> Any:  # noqa: ANN401 - what Field gives
    return Field(sa_column=Column(DateTime(timezone=True), nullable=nullable))


def _text(target: str | None = None, *, nullable: bool = False, primary_key: bool = False, unique: bool = False) -> Any:  # noqa: ANN401 - what Field gives
    links = [ForeignKey(target)] if target else []
    return Field(sa_column=Column(Text, *links, primary_key=primary_key, nullable=nullable, unique=unique))


def _number(*, nullable: bool = False) -> Any:  # noqa: ANN401 - what Field gives
    return Field(sa_column=Column(BigInteger, nullable=nullable))


class BankAccount(SQLModel, table=True):
    """A user of the bank."""

    __tablename__: ClassVar[Any] = "accounts"
    __table_args__ = _BANK

    id: str = _text(primary_key=True)
    username: str | None = _text(nullable=True)
    external_id: str | None = _text(nullable=True, unique=True)
    level: int = Field(sa_type=SmallInteger)
    status: str = _text()
    created_at: datetime = _moment()


class Wallet(SQLModel, table=True):
    """A user's money in one currency; what it holds is in the ledger account that it names."""

    __tablename__: ClassVar[Any] = "wallets"
    __table_args__ = _BANK

    id: str = _text(primary_key=True)
    account_id: str = _text("bank.accounts.id")
    currency: str = _text()
    ledger_account_id: int = Field(
        sa_column=Column(BigInteger, ForeignKey("ledger.accounts.id"), nullable=False, unique=True)
    )
    created_at: datetime = _moment()


class ApiKey(SQLModel, table=True):
    """A key of an account, by the hash of its secret."""

    __tablename__: ClassVar[Any] = "api_keys"
    __table_args__ = _BANK

    id: str = _text(primary_key=True)
    account_id: str = _text("bank.accounts.id")
    name: str = _text()
    scopes: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    secret_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: datetime = _moment()
    expires_at: datetime | None = _moment(nullable=True)
    revoked_at: datetime | None = _moment(nullable=True)
    spend_limit_sat: dict[str, int] | None = Field(sa_column=Column(JSONB, nullable=True))


class IdempotencyKey(SQLModel, table=True):
    """A request that was made with a key, and what became of it: a resource, or a rule's no."""

    __tablename__: ClassVar[Any] = "idempotency_keys"
    __table_args__ = _BANK

    account_id: str = _text(primary_key=True)
    key: str = _text(primary_key=True)
    body_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    resource_id: str | None = _text(nullable=True)
    refusal: dict[str, Any] | None = Field(sa_column=Column(JSONB, nullable=True))
    created_at: datetime = _moment()


class Node(SQLModel, table=True):
    """An LND node that our books answer for."""

    __tablename__: ClassVar[Any] = "nodes"
    __table_args__ = _BANK

    name: str = _text(primary_key=True)
    pubkey: str = _text(unique=True)
    settle_index: int = _number()
    outbound_msat: int = _number()
    reported_at: datetime = _moment()
    adopted_at: datetime = _moment()


class Payment(SQLModel, table=True):
    """Money out of a wallet: to a wallet of ours, or over Lightning."""

    __tablename__: ClassVar[Any] = "payments"
    __table_args__ = _BANK

    id: str = _text(primary_key=True)
    account_id: str = _text("bank.accounts.id")
    wallet_id: str = _text("bank.wallets.id")
    kind: str = _text()
    status: str = _text()
    destination: str = _text()
    amount_msat: int = _number()
    fee_msat: int = _number()
    max_fee_msat: int = _number()
    payment_hash: str | None = _text(nullable=True)
    preimage: str | None = _text(nullable=True)
    bolt11: str | None = _text(nullable=True)
    amount_in_invoice: bool
    memo: str | None = _text(nullable=True)
    external_id: str | None = _text(nullable=True)
    payee_wallet_id: str | None = _text("bank.wallets.id", nullable=True)
    node: str | None = _text("bank.nodes.name", nullable=True)
    attempt: int | None
    known_payment_index: int = _number()
    payment_index: int = _number()
    failure_code: str | None = _text(nullable=True)
    failure_detail: str | None = _text(nullable=True)
    workflow_id: str = _text()
    created_at: datetime = _moment()
    settled_at: datetime | None = _moment(nullable=True)
    service_fee_msat: int = _number()
    fee_version: int | None
    fee_level: int | None = Field(sa_type=SmallInteger)


class PaymentWait(SQLModel, table=True):
    """What a payment that does not end by itself was last seen to wait for."""

    __tablename__: ClassVar[Any] = "payment_waits"
    __table_args__ = _BANK

    payment_id: str = _text("bank.payments.id", primary_key=True)
    reason: str = _text()
    detail: str = _text()
    needs_operator: bool
    since: datetime = _moment()


class LostSighting(SQLModel, table=True):
    """In flight at the node, and in none of its channels at this height: append-only."""

    __tablename__: ClassVar[Any] = "lost_sightings"
    __table_args__ = _BANK

    payment_id: str = _text("bank.payments.id", primary_key=True)
    height: int = Field(primary_key=True)
    time_lock: int
    payment_index: int = _number()
    at: datetime = _moment()


class Invoice(SQLModel, table=True):
    """A request for money, known to one of our nodes."""

    __tablename__: ClassVar[Any] = "invoices"
    __table_args__ = _BANK

    id: str = _text(primary_key=True)
    account_id: str = _text("bank.accounts.id")
    wallet_id: str = _text("bank.wallets.id")
    node: str = _text()
    bolt11: str = _text()
    payment_hash: str = _text(unique=True)
    amount_msat: int | None = _number(nullable=True)
    received_msat: int = _number()
    status: str = _text()
    memo: str | None = _text(nullable=True)
    description_hash: str | None = _text(nullable=True)
    external_id: str | None = _text(nullable=True)
    paid_by: str | None = _text("bank.payments.id", nullable=True, unique=True)
    outside_msat: int = _number()
    outside_at: datetime | None = _moment(nullable=True)
    expires_at: datetime = _moment()
    created_at: datetime = _moment()
    settled_at: datetime | None = _moment(nullable=True)
    service_fee_msat: int = _number()
    fee_version: int | None
    fee_level: int | None = Field(sa_type=SmallInteger)


class NodeCancellation(SQLModel, table=True):
    """A note: settled in the ledger, to be cancelled at the node."""

    __tablename__: ClassVar[Any] = "node_cancellations"
    __table_args__ = _BANK

    payment_hash: str = _text("bank.invoices.payment_hash", primary_key=True)
    node: str = _text()
    created_at: datetime = _moment()
    done_at: datetime | None = _moment(nullable=True)


class BoardedPayment(SQLModel, table=True):
    """Where a payment is that no worker has opened yet, if it shares its workflow with others."""

    __tablename__: ClassVar[Any] = "boarded_payments"
    __table_args__ = _BANK

    payment_id: str = _text(primary_key=True)
    workflow_id: str = _text()
    created_at: datetime = _moment()


class WithdrawLinkRow(SQLModel, table=True):
    """A promise to pay whoever comes with the link, as often as it says."""

    __tablename__: ClassVar[Any] = "withdraw_links"
    __table_args__ = _BANK

    id: str = _text(primary_key=True)
    account_id: str = _text("bank.accounts.id")
    wallet_id: str = _text("bank.wallets.id")
    key_id: str = _text("bank.api_keys.id")
    amount_msat: int = _number()
    uses: int
    uses_left: int
    memo: str | None = _text(nullable=True)
    expires_at: datetime | None = _moment(nullable=True)
    deleted_at: datetime | None = _moment(nullable=True)
    created_at: datetime = _moment()


class WithdrawClaim(SQLModel, table=True):
    """A use of a withdraw link: taken by this payment, and returned when it failed."""

    __tablename__: ClassVar[Any] = "withdraw_claims"
    __table_args__ = _BANK

    payment_id: str = _text("bank.payments.id", primary_key=True)
    link_id: str = _text("bank.withdraw_links.id")
    created_at: datetime = _moment()
    returned_at: datetime | None = _moment(nullable=True)


class Transaction(SQLModel):
    """What moved in a wallet: a row of the view `bank.transactions`."""

    id: str
    kind: str
    direction: str
    status: str
    amount_msat: int
    fee_msat: int
    memo: str | None
    counterparty: str | None
    created_at: datetime
    settled_at: datetime | None
    reference: str
    key: str


class Reconciliation(SQLModel, table=True):
    """One run that compared the books with the places where the money is."""

    __tablename__: ClassVar[Any] = "reconciliations"
    __table_args__ = _BANK

    id: str = _text(primary_key=True)
    workflow_id: str = _text()
    status: str = _text()
    report: dict[str, Any] | None = Field(sa_column=Column(JSONB, nullable=True))
    created_at: datetime = _moment()
    finished_at: datetime | None = _moment(nullable=True)


class Agreement(SQLModel, table=True):
    """When a node and the books last told the same, and of which channels."""

    __tablename__: ClassVar[Any] = "agreements"
    __table_args__ = _BANK

    node: str = _text("bank.nodes.name", primary_key=True)
    channels: list[dict[str, Any]] = Field(sa_column=Column(JSONB, nullable=False))
    agreed_at: datetime = _moment()


class Case(SQLModel, table=True):
    """A difference that a run found and that waits for an operator's word."""

    __tablename__: ClassVar[Any] = "cases"
    __table_args__ = _BANK

    id: str = _text(primary_key=True)
    kind: str = _text()
    account: str = _text()
    subject: str = _text()
    amount_msat: int = _number()
    detail: str = _text()
    suspects: list[dict[str, Any]] = Field(sa_column=Column(JSONB, nullable=False))
    status: str = _text()
    run: str = _text("bank.reconciliations.id")
    last_seen: str = _text("bank.reconciliations.id")
    vanished: bool
    note: str | None = _text(nullable=True)
    resolved_by: str | None = _text(nullable=True)
    resolved_at: datetime | None = _moment(nullable=True)
    created_at: datetime = _moment()


class CaseUpdate(SQLModel, table=True):
    """What happened to a case: append-only."""

    __tablename__: ClassVar[Any] = "case_updates"
    __table_args__ = _BANK

    id: int = Field(sa_type=BigInteger, primary_key=True)
    case_id: str = _text("bank.cases.id")
    event: str = _text()
    actor: str = _text()
    note: str = _text()
    at: datetime = _moment()


class Correction(SQLModel, table=True):
    """What two operators enter by hand: proposed, decided, posted."""

    __tablename__: ClassVar[Any] = "corrections"
    __table_args__ = _BANK

    id: str = _text(primary_key=True)
    kind: str = _text()
    debit: str = _text("ledger.accounts.code")
    credit: str = _text("ledger.accounts.code")
    amount_msat: int = _number()
    reason: str = _text()
    case_id: str | None = _text("bank.cases.id", nullable=True)
    reference: str | None = _text(nullable=True)
    status: str = _text()
    proposed_by: str = _text()
    approved_by: str | None = _text(nullable=True)
    rejected_by: str | None = _text(nullable=True)
    refusal_code: str | None = _text(nullable=True)
    refusal_detail: str | None = _text(nullable=True)
    workflow_id: str = _text()
    created_at: datetime = _moment()
    expires_at: datetime = _moment()
    decided_at: datetime | None = _moment(nullable=True)
    ended_at: datetime | None = _moment(nullable=True)


class CorrectionUpdate(SQLModel, table=True):
    """What happened to a correction: append-only."""

    __tablename__: ClassVar[Any] = "correction_updates"
    __table_args__ = _BANK

    id: int = Field(sa_type=BigInteger, primary_key=True)
    correction_id: str = _text("bank.corrections.id")
    event: str = _text()
    actor: str = _text()
    note: str = _text()
    at: datetime = _moment()


class AuditLine(SQLModel, table=True):
    """What an operator did: append-only."""

    __tablename__: ClassVar[Any] = "audit"
    __table_args__ = _BANK

    id: int = Field(sa_type=BigInteger, primary_key=True)
    at: datetime = _moment()
    operator: str = _text()
    key_id: str = _text()
    action: str = _text()
    account_id: str | None = _text(nullable=True)
    subject: str | None = _text(nullable=True)
    detail: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))


class Rulebook(SQLModel, table=True):
    """One version of the fees or the limits: append-only."""

    __tablename__: ClassVar[Any] = "rulebooks"
    __table_args__ = _BANK

    name: str = _text(primary_key=True)
    version: int = Field(primary_key=True)
    content: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    note: str = _text()
    set_by: str = _text()
    created_at: datetime = _moment()


class PriceRow(SQLModel, table=True):
    """What one bitcoin was worth in another currency, in millionths: append-only."""

    __tablename__: ClassVar[Any] = "prices"
    __table_args__ = _BANK

    id: int = Field(sa_type=BigInteger, primary_key=True)
    currency: str = _text()
    price_micro: int = _number()
    source: str = _text()
    at: datetime = _moment()
