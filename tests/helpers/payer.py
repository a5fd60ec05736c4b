"""Payments without Temporal: the API in this process, and the activities that a worker would run, called directly."""

import hashlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activities.invoice import Receipts
from activities.payment import Payments
from engine.bank import sending
from engine.contracts.invoice import CreditedReceipt, Receipt
from engine.contracts.payment import OpenedPayment, PaymentRequest, ReleasePayment, SettlePayment
from engine.domain.ids import AccountId, ApiKeyId, NodeName, PaymentHash, PaymentId, WalletId, id_for_key
from engine.domain.money import Msat
from engine.domain.sending import Waiting
from engine.ledger.account import get_account_id, open_account_in_tx
from engine.ledger.book import Posting, credit, debit
from engine.ledger.chart import Chart, channels, user
from engine.ledger.checks import find_broken_rules
from engine.ledger.database import Pool, open_pool, transaction
from engine.ledger.store import post_in_tx
from tests.fixtures.postgres import Database
from tests.helpers.api import Api, User, running_api

_numbers = itertools.count(1)
NODE = NodeName("lnd-1")


@dataclass
class Payers:
    """Opens, settles and releases payments of the API's users in the books."""

    api: Api
    pool: Pool

    def __post_init__(self) -> None:
        ids = Chart()
        self.payments, self.receipts = Payments(self.pool, ids), Receipts(self.pool, ids)

    async def prepare(self) -> None:
        """A node with much to send, and its account."""
        await self.api.database.execute(
            "INSERT INTO bank.nodes(name, pubkey, outbound_msat) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            NODE,
            "02" + "ab" * 32,
            10**15,
        )
        async with transaction(self.pool) as conn:
            await open_account_in_tx(conn, channels(NODE), "asset", mode="append")

    async def fund(self, payer: User, amount_msat: int) -> None:
        async with transaction(self.pool) as conn:
            to = await get_account_id(conn, user(WalletId(payer.wallet_id)))
            legs = [debit(await get_account_id(conn, channels(NODE)), amount_msat), credit(to, amount_msat)]
            await post_in_tx(
                conn, Posting(ref=f"fund:{next(_numbers)}", template="test", phase="post", actor="test", legs=legs)
            )

    async def pay(
        self, payer: User, payee: User | None, amount_msat: int, *, key: str | None = None, **more: Any
    ) -> OpenedPayment:
        """To a user of ours, or else over Lightning."""
        return await self.payments.open_payment(self.request(payer, payee, amount_msat, key=key, **more))

    async def outcome(self, payer: User, payee: User | None, amount_msat: int, **more: Any) -> str:
        """The status, or the code of the refusal."""
        opened = (await self.pay(payer, payee, amount_msat, **more)).outcome
        return opened.refusal.code if opened.refusal else str(opened.status)

    def request(
        self, payer: User, payee: User | None, amount_msat: int, *, key: str | None = None, **more: Any
    ) -> PaymentRequest:
        key = key or f"key-{next(_numbers)}"
        payment_hash = hashlib.sha256(f"{payer.id} {key}".encode()).hexdigest()
        lightning = {"bolt11": "x", "payment_hash": PaymentHash(payment_hash), "max_fee_msat": Msat(5_000)}
        internal = {"payee_wallet_id": WalletId(payee.wallet_id) if payee else None, "max_fee_msat": Msat(0)}
        account = AccountId(payer.id)
        return PaymentRequest(
            **{
                "payment_id": PaymentId(id_for_key("pay", account, key)),
                "account_id": account,
                "wallet_id": WalletId(payer.wallet_id),
                "idempotency_key": key,
                "body_hash": hashlib.sha256(f"{payer.id} {key} {amount_msat}".encode()).hexdigest(),
                "destination": "x",
                "amount_msat": Msat(amount_msat),
                "api_key_id": ApiKeyId("key_" + payer.headers["Authorization"].split("_")[1]),
                **(internal if payee else lightning),
                **more,
            }
        )

    async def settle(self, opened: OpenedPayment, fee_msat: int = 0) -> None:
        assert opened.attempt is not None
        await self.payments.settle_payment(
            SettlePayment(
                payment_id=opened.attempt.payment_id,
                fee_msat=Msat(fee_msat),
                preimage="00" * 32,
                payment_index=1,
                body_hash="00",
            )
        )

    async def release(self, opened: OpenedPayment) -> None:
        assert opened.attempt is not None
        await self.payments.release_payment(
            ReleasePayment(
                payment_id=opened.attempt.payment_id,
                failure_code="no_route",
                failure_detail="",
                payment_index=1,
                body_hash="00",
            )
        )

    async def wait_for(self, payment_id: PaymentId, reason: str, *, needs_operator: bool) -> None:
        """As a worker notes it: the payment waits, for this reason."""
        async with self.pool.acquire() as conn:
            waiting = Waiting(reason=reason, detail="…", needs_operator=needs_operator)
            await sending.note_wait(conn, payment_id, waiting)

    async def receive(self, payment_hash: str, amount_msat: int) -> CreditedReceipt:
        return await self.receipts.credit_receipt(
            Receipt(payment_hash=PaymentHash(payment_hash), node=NODE, received_msat=Msat(amount_msat))
        )


@asynccontextmanager
async def running_payers(database: Database, folder: Path, **settings: object) -> AsyncIterator[Payers]:
    """An API on this database, without a limit of requests, and its payers; the rules of the books hold at the end."""
    async with running_api(database.app_dsn, database.owner_dsn, folder, rate_limit_per_minute=0, **settings) as api:
        pool = await open_pool(database.app_dsn, max_size=12)
        payers = Payers(api, pool)
        await payers.prepare()
        yield payers
        async with pool.acquire() as conn:
            assert await find_broken_rules(conn) == []
        await pool.close()
