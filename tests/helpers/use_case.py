"""Use cases from plain Python: the API's resources on a real Postgres, callers of two accounts, and no HTTP.

Temporal and Redis are away. `Worker` stands in for both: it opens a payment or a batch the moment it is started.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from temporalio.client import Client

from activities.batch import Batches
from activities.payment import Payments
from api.service.auth import Caller, authenticate
from api.service.lookup import Lookups
from api.service.payment.lane import Lanes
from api.service.payment.payment_run import Run
from api.service.resources import Resources
from engine.bank.account.account import NewAccount, list_wallets, open_bank_account_in_tx
from engine.bank.account.api_key import NewApiKey, add_api_key_in_tx, new_secret, token
from engine.bank.limit import LimitBooks
from engine.bank.node.node import add_row_in_tx, report_room
from engine.clients.announcements import Listener
from engine.clients.cache import Cache
from engine.clients.lnurl.web import Web
from engine.contracts import workflow_ids
from engine.contracts.batch import BatchOutcome, BatchRequest
from engine.contracts.converter import DATA_CONVERTER
from engine.contracts.payment import OpenedPayment, PaymentOutcome, PaymentRequest, SettlePayment
from engine.domain.ids import AccountId, ApiKeyId, NodeName, WalletId, new_id
from engine.domain.money import Msat
from engine.ledger.account import get_account_id, open_account_in_tx
from engine.ledger.book import Posting, credit, debit
from engine.ledger.chart import Chart, channels, user
from engine.ledger.database import open_pool, transaction
from engine.ledger.store import post_in_tx
from engine.views.balance import get_balance
from tests.fixtures.postgres import Database
from tests.helpers.api import settings_for

NODE = NodeName("lnd-1")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Owner:
    """A user of the bank, as use cases know it."""

    caller: Caller
    wallet_id: WalletId


@dataclass
class Desk:
    """Where use cases are called."""

    resources: Resources

    async def open_account(self, *, username: str | None = None, funds_msat: int = 0) -> Owner:
        account_id, key_id, secret = AccountId(new_id("acct")), ApiKeyId(new_id("key")), new_secret()
        async with transaction(self.resources.pool) as conn:
            await open_bank_account_in_tx(conn, NewAccount(id=account_id, username=username))
            key = NewApiKey(
                id=key_id,
                account_id=account_id,
                name="test",
                scopes=("read", "receive", "send"),
                secret=secret,
                expires_at=None,
                spend_limit_sat=None,
                made_by=None,
            )
            await add_api_key_in_tx(conn, key)
            (wallet,) = await list_wallets(conn, account_id)
            if funds_msat:
                into = await get_account_id(conn, user(wallet.id))
                legs = [debit(await get_account_id(conn, channels(NODE)), funds_msat), credit(into, funds_msat)]
                ref = f"fund:use-case:{next(_numbers)}"
                await post_in_tx(conn, Posting(ref=ref, template="test", phase="post", actor="test", legs=legs))
        return Owner(await authenticate(self.resources, token(key_id, secret)), wallet.id)

    async def available(self, owner: Owner) -> int:
        async with self.resources.reading() as conn:
            (wallet,) = await list_wallets(conn, owner.caller.account_id)
            return (await get_balance(conn, wallet.ledger_account_id)).available_msat


class Worker:
    """Opens what is started, as a worker would; its payments over Lightning stay pending until `settle`."""

    def __init__(self, desk: Desk) -> None:
        pool = desk.resources.pool
        self._payments, self._batches = Payments(pool, Chart()), Batches(pool, Chart())
        self.started: list[PaymentRequest | BatchRequest] = []
        self.opened: list[OpenedPayment] = []
        self._batch_ends: list[BatchOutcome] = []

    async def start(self, _client: object, _listener: object, request: PaymentRequest, *, payee: str) -> Run:
        assert payee
        self.started.append(request)
        self.opened.append(opened := await self._payments.open_payment(request))
        workflow_id = workflow_ids.payment(request.account_id, request.idempotency_key)
        return Run(workflow_id=workflow_id, ended=asyncio.create_task(_end(opened)), started_here=True)

    async def start_batch(self, _client: object, request: BatchRequest) -> tuple["Worker", bool]:
        self.started.append(request)
        self._batch_ends.append(await self._batches.open_batch(request))
        return self, True

    async def wait_for_batch(self, _handle: object, _deadline: object) -> BatchOutcome:
        return self._batch_ends[-1]

    async def settle(self, opened: OpenedPayment) -> None:
        assert opened.attempt is not None
        await self._payments.settle_payment(
            SettlePayment(
                payment_id=opened.attempt.payment_id,
                fee_msat=Msat(0),
                preimage="00" * 32,
                payment_index=1,
                body_hash="00",
            )
        )


async def _end(opened: OpenedPayment) -> Sequence[PaymentOutcome]:
    """A workflow ends when its payment does."""
    if not opened.outcome.is_final:
        await asyncio.Event().wait()
    return [opened.outcome]


@asynccontextmanager
async def open_desk(database: Database, folder: Path) -> AsyncIterator[Desk]:
    settings = settings_for(database.app_dsn, folder, rate_limit_per_minute=0)
    redis_url = settings.redis_url.get_secret_value()
    pool, cache, listener, web = (
        await open_pool(database.app_dsn),
        Cache(redis_url),
        Listener(redis_url),
        Web(guarded=True),
    )
    temporal = await Client.connect(settings.temporal_address, data_converter=DATA_CONVERTER, lazy=True)
    async with httpx.AsyncClient() as http:
        desk = Desk(
            Resources(
                settings=settings,
                pool=pool,
                temporal=temporal,
                listener=listener,
                lanes=Lanes(temporal, listener, width=1, patience_s=1),
                lightning_lanes=Lanes(temporal, listener, width=1, patience_s=0, over_lightning=True),
                lookups=Lookups(pool, cache),
                cache=cache,
                invoices={},
                http=http,
                limits=LimitBooks(),
                web=web,
            )
        )
        async with transaction(pool) as conn:
            await open_account_in_tx(conn, channels(NODE), "asset", mode="append")
            await add_row_in_tx(conn, NODE, pubkey="02" + "ab" * 32, settle_index=0)
            await report_room(conn, NODE, Msat(10**12), Msat(10**12), Msat(10**12))
        yield desk
    await web.close()
    await listener.close()
    await cache.close()
    await pool.close()
