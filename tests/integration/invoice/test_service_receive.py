"""Being paid without HTTP: an account, its keys and an invoice from plain Python, through the use cases alone."""

import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from api.http.codes import Forbidden
from api.service import audit, ledger
from api.service.account import account, account_status, api_key
from api.service.account.account import AccountOrder, AccountOut
from api.service.account.api_key_shape import KeyOrder
from api.service.auth import Caller, authenticate
from api.service.invoice import invoice, public
from api.service.invoice.node import InvoiceOrder
from api.service.invoice.payee import find_payee
from api.service.resources import Resources, open_resources
from api.service.wallet import statement, transaction, wallet
from engine.domain.errors import Conflict, NotFound
from engine.domain.ids import NodeName
from engine.views.account import AccountFilter
from engine.views.audit import AuditFilter
from engine.views.transaction import TransactionFilter
from tests.fixtures.postgres import Database
from tests.helpers.api import MadeUpNode, settings_for
from tests.tidy.house import ROOT

pytestmark = pytest.mark.integration

ADMIN = "an-admin-key-for-tests"
REQUEST, OTHER_REQUEST = (hashlib.sha256(text).digest() for text in (b"one request", b"another request"))


@pytest_asyncio.fixture
async def resources(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Resources]:
    async with open_resources(settings_for(ledger_db.app_dsn, tmp_path, rate_limit_per_minute=0)) as opened:
        nodes = {NodeName(name): MadeUpNode(NodeName(name)) for name in ("lnd-1", "lnd-2")}
        yield replace(opened, invoices=nodes)  # type: ignore[arg-type]


async def open_account(resources: Resources, *scopes: str, username: str | None = None) -> tuple[AccountOut, Caller]:
    """An account, and a caller with a key of it."""
    admin = await authenticate(resources, ADMIN)
    opened = await account.open_account(
        resources, admin, AccountOrder(username=username), key=None, body_hash=b"an account"
    )
    order = KeyOrder(name="app", scopes=scopes)
    made = await api_key.make_api_key(resources, admin, opened.content.id, order, key=None, body_hash=b"a key")
    return opened.content, await authenticate(resources, made.content.key)


async def test_an_invoice_is_made_shown_listed_and_cancelled(resources: Resources) -> None:
    opened, caller = await open_account(resources, "read", "receive")
    order = InvoiceOrder(wallet_id=opened.wallets[0].id, amount_msat=250_000, memo="coffee")
    made = await invoice.make_invoice(resources, caller, order, key="k", body_hash=REQUEST)
    assert not made.is_replay
    assert (made.content.status, made.content.amount_msat, made.content.memo) == ("open", 250_000, "coffee")
    again = await invoice.make_invoice(resources, caller, order, key="k", body_hash=REQUEST)
    assert (again.is_replay, again.content) == (True, made.content)
    with pytest.raises(Conflict):
        await invoice.make_invoice(resources, caller, order, key="k", body_hash=OTHER_REQUEST)

    assert await invoice.show_invoice(resources, caller, made.content.id) == made.content
    second = await invoice.make_invoice(resources, caller, order, key=None, body_hash=REQUEST)
    first_page = await invoice.list_invoices(resources, caller, limit=1)
    assert [each.id for each in first_page.rows] == [second.content.id]
    assert first_page.following is not None
    last_page = await invoice.list_invoices(resources, caller, after=first_page.following, limit=1)
    assert (list(last_page.rows), last_page.following) == ([made.content], None)

    cancelled = await invoice.cancel_invoice(resources, caller, made.content.id, key=None, body_hash=REQUEST)
    assert cancelled.content.status == "cancelled"


async def test_a_use_case_asks_what_the_key_allows(resources: Resources) -> None:
    opened, reader = await open_account(resources, "read")
    _, stranger = await open_account(resources, "read", "receive")
    order = InvoiceOrder(wallet_id=opened.wallets[0].id)
    with pytest.raises(Forbidden):
        await invoice.make_invoice(resources, reader, order, key=None, body_hash=REQUEST)
    with pytest.raises(NotFound):
        await invoice.make_invoice(resources, stranger, order, key=None, body_hash=REQUEST)
    with pytest.raises(NotFound):
        await wallet.show_wallet(resources, stranger, opened.wallets[0].id)
    with pytest.raises(NotFound):
        await api_key.list_api_keys(resources, stranger, opened.id, limit=1)
    with pytest.raises(Forbidden):
        await account.open_account(resources, reader, AccountOrder(), key=None, body_hash=REQUEST)
    for operators_own in (
        account_status.show_account(resources, reader, opened.id),
        account_status.search_accounts(resources, reader, AccountFilter(), limit=1),
        account_status.change_account(resources, reader, opened.id, status="locked"),
        audit.list_audit(resources, reader, AuditFilter(), limit=1),
        ledger.give_trial_balance(resources, reader),
        ledger.give_account_balance(resources, reader, "equity:capital"),
        ledger.tell_transfer(resources, reader, "x"),
        ledger.export_ledger(resources, reader, "csv", None, None),
    ):
        with pytest.raises(Forbidden):
            await operators_own


async def test_an_account_reads_its_wallet(resources: Resources) -> None:
    opened, caller = await open_account(resources, "read")
    (own,) = await wallet.list_own_wallets(resources, caller)
    assert [own] == opened.wallets
    assert await wallet.show_wallet(resources, caller, own.id) == own
    assert (await account.show_own_account(resources, caller)).id == opened.id
    nothing = await transaction.list_transactions(resources, caller, own.id, TransactionFilter(), limit=10)
    assert (list(nothing.rows), nothing.following) == ([], None)
    page = await statement.give_statement(resources, caller, own.id, None, None, limit=10)
    assert (page.period.opening_msat, page.period.closing_msat, list(page.movements.rows)) == (0, 0, [])
    pieces = [piece async for piece in await statement.export_statement(resources, caller, own.id, None, None)]
    assert "closing" in pieces[-1]


async def test_a_key_makes_and_revokes_keys(resources: Resources) -> None:
    opened, caller = await open_account(resources, "read", "receive")
    order = KeyOrder(name="shop", scopes=["receive"])
    made = (await api_key.make_api_key(resources, caller, opened.id, order, key=None, body_hash=REQUEST)).content
    assert (await authenticate(resources, made.key)).scopes == {"receive"}
    listed = await api_key.list_api_keys(resources, caller, opened.id, limit=10)
    assert [each.name for each in listed.rows] == ["shop", "app"]
    assert (await api_key.revoke_api_key(resources, caller, opened.id, made.id)).revoked_at is not None
    order = KeyOrder(name="spender", scopes=["send"])
    with pytest.raises(Forbidden):
        await api_key.make_api_key(resources, caller, opened.id, order, key=None, body_hash=REQUEST)


async def test_an_operator_locks_an_account_and_reads_the_books(resources: Resources) -> None:
    opened, _ = await open_account(resources, "read")
    _, support = await open_account(resources, "support")
    _, finance = await open_account(resources, "finance")
    locked = await account_status.change_account(resources, support, opened.id, status="locked", note="lost phone")
    assert locked.status == "locked"
    found = await account_status.search_accounts(resources, finance, AccountFilter(status="locked"), limit=10)
    assert [each.id for each in found.rows] == [opened.id]
    newest = (await audit.list_audit(resources, finance, AuditFilter(account_id=opened.id), limit=1)).rows[0]
    assert (newest.action, newest.operator) == ("account.lock", support.owner)
    rows = await ledger.give_trial_balance(resources, finance)
    code = f"liab:user:{opened.wallets[0].id}"
    assert await ledger.give_account_balance(resources, finance, code) in rows
    with pytest.raises(NotFound):
        await ledger.tell_transfer(resources, finance, "ln:nothing")
    pieces = [piece async for piece in await ledger.export_ledger(resources, finance, "csv", None, None)]
    assert pieces


async def test_anybody_asks_an_invoice_of_a_user(resources: Resources) -> None:
    opened, caller = await open_account(resources, "read", "receive", username="bob")
    payee = await find_payee(resources, "Bob")
    assert payee.account_id == opened.id
    order = InvoiceOrder(wallet_id=payee.wallet_id, amount_msat=1_000)
    made = await public.make_for_public(resources, payee.account_id, order)
    assert await public.show_for_public(resources, payee.account_id, made.payment_hash) == (made, None)
    own = await invoice.make_invoice(resources, caller, order, key=None, body_hash=REQUEST)
    for unknown in (own.content.payment_hash, "0" * 64, "no hash"):
        with pytest.raises(NotFound):
            await public.show_for_public(resources, payee.account_id, unknown)


def test_the_use_cases_load_no_web_framework() -> None:
    modules = [
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for path in (ROOT / "api/service").rglob("*.py")
        if path.stem != "__init__"
    ]
    assert len(modules) > 30
    imports = "".join(f"import {module}; " for module in modules)
    check = "import sys; assert not {'fastapi', 'starlette'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", imports + check], cwd=ROOT, check=True)
