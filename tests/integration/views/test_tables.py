"""The classes of schema `bank` say what the migrations made, and the views name the columns of the classes."""

import asyncpg
import pytest
from sqlalchemy import ARRAY, Table
from sqlalchemy.dialects import postgresql

from engine.views import (
    audit,
    correction,
    deposit_decision,
    forced_end,
    reconciliation,
    transaction,
)
from engine.views.page import Listing
from engine.views.table.address import DepositAddress
from engine.views.table.bank import (
    ApiKey,
    BankAccount,
    Batch,
    BegunSend,
    BoardedPayment,
    IdempotencyKey,
    Invoice,
    KeysendRow,
    LostSighting,
    Node,
    NodeCancellation,
    NodeChannel,
    Payment,
    PaymentWait,
    RefusedSend,
    SuccessActionRow,
    Wallet,
    WithdrawClaim,
    WithdrawLinkRow,
)
from engine.views.table.chain import (
    Chain,
    ChainBlock,
    Coin,
    CoinOrigin,
    CoinSpend,
    DepositDecision,
    DepositOutpoint,
    DepositRow,
    ReceivableRow,
)
from engine.views.table.operator import (
    Agreement,
    AuditLine,
    Case,
    CaseUpdate,
    Correction,
    CorrectionUpdate,
    Decision,
    PriceRow,
    Reconciliation,
    Rulebook,
)
from engine.views.table.withdrawal import (
    CoinReservation,
    PayoutInput,
    PayoutRow,
    PayoutVersion,
    WithdrawalDecision,
    WithdrawalRow,
)
from engine.views.withdrawal.decision import WITHDRAWAL_DECISIONS
from tests.fixtures.postgres import Database

pytestmark = pytest.mark.integration

TABLES = [
    BankAccount,
    Wallet,
    ApiKey,
    IdempotencyKey,
    Node,
    Payment,
    PaymentWait,
    BegunSend,
    NodeChannel,
    RefusedSend,
    LostSighting,
    KeysendRow,
    SuccessActionRow,
    Batch,
    Invoice,
    NodeCancellation,
    BoardedPayment,
    Reconciliation,
    Agreement,
    Case,
    CaseUpdate,
    Correction,
    CorrectionUpdate,
    Decision,
    AuditLine,
    Rulebook,
    PriceRow,
    WithdrawLinkRow,
    WithdrawClaim,
    Chain,
    ChainBlock,
    DepositRow,
    DepositOutpoint,
    ReceivableRow,
    Coin,
    CoinOrigin,
    CoinSpend,
    DepositDecision,
    DepositAddress,
    PayoutRow,
    PayoutVersion,
    PayoutInput,
    CoinReservation,
    WithdrawalRow,
    WithdrawalDecision,
]
NAMES = {"timestamp with time zone": "TIMESTAMP WITH TIME ZONE", "ARRAY": "TEXT[]"}


async def columns(database: Database, table: str) -> dict[str, tuple[str, bool]]:
    connection = await asyncpg.connect(database.owner_dsn)
    try:
        rows = await connection.fetch(
            """SELECT column_name, data_type, is_nullable FROM information_schema.columns
                WHERE table_schema = 'bank' AND table_name = $1""",
            table,
        )
    finally:
        await connection.close()
    return {
        row["column_name"]: (NAMES.get(row["data_type"], row["data_type"].upper()), row["is_nullable"] == "YES")
        for row in rows
    }


def names(select: str) -> list[str]:
    return [name.strip() for name in select.split(",")]


@pytest.mark.parametrize("model", TABLES, ids=lambda model: model.__name__)
async def test_each_class_is_its_table(shared_ledger_db: Database, model: type) -> None:
    table: Table = model.__table__  # type: ignore[attr-defined]
    described = {
        column.name: (
            "TEXT[]" if isinstance(column.type, ARRAY) else column.type.compile(dialect=postgresql.dialect()).upper(),  # type: ignore[no-untyped-call]
            bool(column.nullable),
        )
        for column in table.columns
    }
    assert described == await columns(shared_ledger_db, table.name)


async def test_every_table_has_its_class_and_the_view_its_columns(shared_ledger_db: Database) -> None:
    connection = await asyncpg.connect(shared_ledger_db.owner_dsn)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'bank'")
    finally:
        await connection.close()
    assert {row["tablename"] for row in tables} == {model.__table__.name for model in TABLES}  # type: ignore[attr-defined]
    view = await columns(shared_ledger_db, "transactions")
    assert set(view) == {*names(transaction._COLUMNS), "wallet_id"}


@pytest.mark.parametrize(
    ("listing", "model"),
    [
        (audit._LINES, AuditLine),
        (correction.CORRECTIONS, Correction),
        (forced_end.DECISIONS, Decision),
        (reconciliation.RUNS, Reconciliation),
        (reconciliation.CASES, Case),
        (deposit_decision.DEPOSIT_DECISIONS, DepositDecision),
        (WITHDRAWAL_DECISIONS, WithdrawalDecision),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_view_of_whole_rows_names_every_column(listing: Listing, model: type) -> None:
    table: Table = model.__table__  # type: ignore[attr-defined]
    assert listing.source == table.fullname
    assert names(listing.columns) == list(table.columns.keys())
