"""Schema `bank` as SQLModel classes: a typed description of each row, for readers and tests.

The migrations are the truth; a test compares each class with the migrated database, column by column. No process
imports these classes (decision 0043): views name their columns and read with plain statements over asyncpg, and a test
compares their columns with these classes.
"""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import ARRAY, BigInteger, Column, DateTime, ForeignKey, LargeBinary, SmallInteger, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

BANK: dict[str, Any] = {"schema": "bank"}


def moment(*, nullable: bool = False) -> Any:  # noqa: ANN401 - what Field gives
    """A time with its zone."""
    return Field(sa_column=Column(DateTime(timezone=True), nullable=nullable))


def text(target: str | None = None, *, nullable: bool = False, primary_key: bool = False, unique: bool = False) -> Any:  # noqa: ANN401 - what Field gives
    """Text, perhaps the key of another table."""
    links = [ForeignKey(target)] if target else []
    return Field(sa_column=Column(Text, *links, primary_key=primary_key, nullable=nullable, unique=unique))


def number(*, nullable: bool = False) -> Any:  # noqa: ANN401 - what Field gives
    """A 64-bit number."""
    return Field(sa_column=Column(BigInteger, nullable=nullable))


class BankAccount(SQLModel, table=True):
    """A user of the bank."""

    __tablename__: ClassVar[Any] = "accounts"
    __table_args__ = BANK

    id: str = text(primary_key=True)
    username: str | None = text(nullable=True)
    external_id: str | None = text(nullable=True, unique=True)
    level: int = Field(sa_type=SmallInteger)
    status: str = text()
    created_at: datetime = moment()


class Wallet(SQLModel, table=True):
    """A user's money in one currency; what it holds is in the ledger account that it names."""

    __tablename__: ClassVar[Any] = "wallets"
    __table_args__ = BANK

    id: str = text(primary_key=True)
    account_id: str = text("bank.accounts.id")
    currency: str = text()
    ledger_account_id: int = Field(
        sa_column=Column(BigInteger, ForeignKey("ledger.accounts.id"), nullable=False, unique=True)
    )
    created_at: datetime = moment()


class ApiKey(SQLModel, table=True):
    """A key of an account, by the hash of its secret."""

    __tablename__: ClassVar[Any] = "api_keys"
    __table_args__ = BANK

    id: str = text(primary_key=True)
    account_id: str = text("bank.accounts.id")
    name: str = text()
    scopes: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    secret_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: datetime = moment()
    expires_at: datetime | None = moment(nullable=True)
    revoked_at: datetime | None = moment(nullable=True)
    spend_limit_sat: dict[str, int] | None = Field(sa_column=Column(JSONB, nullable=True))
    made_by: str | None = text("bank.api_keys.id", nullable=True)


class IdempotencyKey(SQLModel, table=True):
    """A request that was made with a key, and what became of it: a resource, or a refusal."""

    __tablename__: ClassVar[Any] = "idempotency_keys"
    __table_args__ = BANK

    account_id: str = text(primary_key=True)
    key: str = text(primary_key=True)
    body_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    resource_id: str | None = text(nullable=True)
    refusal: dict[str, Any] | None = Field(sa_column=Column(JSONB, nullable=True))
    created_at: datetime = moment()


class Node(SQLModel, table=True):
    """An LND node that our books answer for."""

    __tablename__: ClassVar[Any] = "nodes"
    __table_args__ = BANK

    name: str = text(primary_key=True)
    pubkey: str = text(unique=True)
    settle_index: int = number()
    outbound_msat: int = number()
    inbound_msat: int | None = number(nullable=True)
    announced_inbound_msat: int | None = number(nullable=True)
    reported_at: datetime = moment()
    adopted_at: datetime = moment()
    credited_index: int = number()
    handed_on_index: int = number()


class Payment(SQLModel, table=True):
    """Money out of a wallet: to a wallet of this bank, or over Lightning."""

    __tablename__: ClassVar[Any] = "payments"
    __table_args__ = BANK

    id: str = text(primary_key=True)
    account_id: str = text("bank.accounts.id")
    wallet_id: str = text("bank.wallets.id")
    kind: str = text()
    status: str = text()
    destination: str = text()
    amount_msat: int = number()
    fee_msat: int = number()
    max_fee_msat: int = number()
    payment_hash: str | None = text(nullable=True)
    preimage: str | None = text(nullable=True)
    bolt11: str | None = text(nullable=True)
    amount_in_invoice: bool
    memo: str | None = text(nullable=True)
    external_id: str | None = text(nullable=True)
    payee_wallet_id: str | None = text("bank.wallets.id", nullable=True)
    node: str | None = text("bank.nodes.name", nullable=True)
    attempt: int | None
    known_payment_index: int = number()
    payment_index: int = number()
    failure_code: str | None = text(nullable=True)
    failure_detail: str | None = text(nullable=True)
    workflow_id: str = text()
    created_at: datetime = moment()
    settled_at: datetime | None = moment(nullable=True)
    service_fee_msat: int = number()
    fee_version: int | None
    fee_level: int | None = Field(sa_type=SmallInteger)
    batch_id: str | None = text("bank.batches.id", nullable=True)
    batch_place: int | None = Field(sa_type=SmallInteger)
    delivered_msat: int | None = number(nullable=True)


class Batch(SQLModel, table=True):
    """Payments between users of this bank that one request asked for: all of them are settled, or there is no batch."""

    __tablename__: ClassVar[Any] = "batches"
    __table_args__ = BANK

    id: str = text(primary_key=True)
    account_id: str = text("bank.accounts.id")
    wallet_id: str = text("bank.wallets.id")
    count: int
    total_msat: int = number()
    workflow_id: str = text()
    created_at: datetime = moment()


class PaymentWait(SQLModel, table=True):
    """What a payment that does not end by itself was last seen to wait for."""

    __tablename__: ClassVar[Any] = "payment_waits"
    __table_args__ = BANK

    payment_id: str = text("bank.payments.id", primary_key=True)
    reason: str = text()
    detail: str = text()
    needs_operator: bool
    since: datetime = moment()


class KeysendRow(SQLModel, table=True):
    """The preimage of a payment without an invoice."""

    __tablename__: ClassVar[Any] = "keysends"
    __table_args__ = BANK

    payment_id: str = text("bank.payments.id", primary_key=True)
    preimage: str = text()


class SuccessActionRow(SQLModel, table=True):
    """What a payee outside shows to whoever has paid him."""

    __tablename__: ClassVar[Any] = "success_actions"
    __table_args__ = BANK

    payment_id: str = text("bank.payments.id", primary_key=True)
    action: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))


class BegunSend(SQLModel, table=True):
    """The node has said that it has this attempt: append-only."""

    __tablename__: ClassVar[Any] = "begun_sends"
    __table_args__ = BANK

    payment_id: str = text("bank.payments.id", primary_key=True)
    at: datetime = moment()


class RefusedSend(SQLModel, table=True):
    """A send that its node answered with an error, and then did not know."""

    __tablename__: ClassVar[Any] = "refused_sends"
    __table_args__ = BANK

    payment_id: str = text("bank.payments.id", primary_key=True)
    words: str = text()
    times: int
    last_at: datetime = moment()


class NodeChannel(SQLModel, table=True):
    """A channel of a node as it was last seen."""

    __tablename__: ClassVar[Any] = "node_channels"
    __table_args__ = BANK

    node: str = text("bank.nodes.name", primary_key=True)
    point: str = text(primary_key=True)
    updates: int = number()
    closed_at: datetime | None = moment(nullable=True)
    doubt: str | None = text(nullable=True)
    doubted_at: datetime | None = moment(nullable=True)


class LostSighting(SQLModel, table=True):
    """In flight at the node, and in none of its channels at this height: append-only."""

    __tablename__: ClassVar[Any] = "lost_sightings"
    __table_args__ = BANK

    payment_id: str = text("bank.payments.id", primary_key=True)
    height: int = Field(primary_key=True)
    time_lock: int
    payment_index: int = number()
    at: datetime = moment()


class Invoice(SQLModel, table=True):
    """A request for money, known to one of our nodes."""

    __tablename__: ClassVar[Any] = "invoices"
    __table_args__ = BANK

    id: str = text(primary_key=True)
    account_id: str = text("bank.accounts.id")
    wallet_id: str = text("bank.wallets.id")
    node: str = text()
    bolt11: str = text()
    payment_hash: str = text(unique=True)
    amount_msat: int | None = number(nullable=True)
    received_msat: int = number()
    status: str = text()
    memo: str | None = text(nullable=True)
    description_hash: str | None = text(nullable=True)
    external_id: str | None = text(nullable=True)
    paid_by: str | None = text("bank.payments.id", nullable=True, unique=True)
    outside_msat: int = number()
    outside_at: datetime | None = moment(nullable=True)
    expires_at: datetime = moment()
    created_at: datetime = moment()
    settled_at: datetime | None = moment(nullable=True)
    service_fee_msat: int = number()
    fee_version: int | None
    fee_level: int | None = Field(sa_type=SmallInteger)
    route_hints: int = Field(sa_type=SmallInteger)


class NodeCancellation(SQLModel, table=True):
    """A reminder: the invoice is settled in the ledger and must be cancelled at its node."""

    __tablename__: ClassVar[Any] = "node_cancellations"
    __table_args__ = BANK

    payment_hash: str = text("bank.invoices.payment_hash", primary_key=True)
    node: str = text()
    created_at: datetime = moment()
    done_at: datetime | None = moment(nullable=True)
    tries: int
    due_at: datetime = moment()
    problem: str | None = text(nullable=True)


class BoardedPayment(SQLModel, table=True):
    """A request that was accepted and that no worker has opened yet, and the workflow that carries it."""

    __tablename__: ClassVar[Any] = "boarded_payments"
    __table_args__ = BANK

    payment_id: str = text(primary_key=True)
    workflow_id: str = text()
    created_at: datetime = moment()
    body_hash: bytes | None = Field(sa_column=Column(LargeBinary, nullable=True))
    kind: str = text()
    request: dict[str, Any] | None = Field(sa_column=Column(JSONB, nullable=True))


class WithdrawLinkRow(SQLModel, table=True):
    """A promise to pay whoever comes with the link, as often as it says."""

    __tablename__: ClassVar[Any] = "withdraw_links"
    __table_args__ = BANK

    id: str = text(primary_key=True)
    account_id: str = text("bank.accounts.id")
    wallet_id: str = text("bank.wallets.id")
    key_id: str = text("bank.api_keys.id")
    amount_msat: int = number()
    uses: int
    uses_left: int
    memo: str | None = text(nullable=True)
    expires_at: datetime | None = moment(nullable=True)
    deleted_at: datetime | None = moment(nullable=True)
    created_at: datetime = moment()


class WithdrawClaim(SQLModel, table=True):
    """A use of a withdraw link: taken by this payment, and returned when it failed."""

    __tablename__: ClassVar[Any] = "withdraw_claims"
    __table_args__ = BANK

    payment_id: str = text("bank.payments.id", primary_key=True)
    link_id: str = text("bank.withdraw_links.id")
    created_at: datetime = moment()
    returned_at: datetime | None = moment(nullable=True)
