"""A key whose payment was accepted and waits in a lane: it stands for that request, before any worker has opened it."""

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import pytest
import pytest_asyncio

from activities.direct_send import DirectSend
from activities.payment import Payments
from engine.bank.accepted import note_accepted
from engine.contracts.payment import PaymentRequest, PaymentStatus
from engine.domain.errors import Invalid
from engine.domain.ids import AccountId, BatchId, NodeName, PaymentHash, PaymentId, WalletId, id_for_key
from engine.domain.money import Msat
from engine.ledger import chart
from tests.fixtures.postgres import Database
from tests.helpers.api import Api, User, is_problem, running_api
from tests.helpers.teller import Teller, open_teller

pytestmark = pytest.mark.integration

LANE = "lane-0000"


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, rate_limit_per_minute=0) as api:
        yield api


@pytest_asyncio.fixture
async def teller(api: Api) -> Teller:
    return await open_teller(api)


def hash_of(payer: User, to: User, amount_msat: int) -> bytes:
    """As the API makes it of a payment's request."""
    sent = {"wallet_id": payer.wallet_id, "destination": f"wallet:{to.wallet_id}", "amount_msat": amount_msat}
    canonical = json.dumps(sent, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"POST\n/v1/payments\n{canonical}".encode()).digest()


def request_of(payer: User, to: User, amount_msat: int, key: str = "k") -> PaymentRequest:
    return PaymentRequest(
        payment_id=PaymentId(id_for_key("pay", AccountId(payer.id), key)),
        account_id=AccountId(payer.id),
        wallet_id=WalletId(payer.wallet_id),
        idempotency_key=key,
        body_hash=hash_of(payer, to, amount_msat).hex(),
        destination=f"wallet:{to.wallet_id}",
        payee_wallet_id=WalletId(to.wallet_id),
        amount_msat=Msat(amount_msat),
        max_fee_msat=Msat(0),
    )


async def board(teller: Teller, asked: PaymentRequest) -> bytes | None:
    async with teller.pool.acquire() as conn:
        now = await conn.fetchval("SELECT clock_timestamp()")
        body_hash = bytes.fromhex(asked.body_hash)
        return await note_accepted(conn, asked.payment_id, LANE, now, body_hash, request=asdict(asked))


async def test_another_request_with_the_key_is_a_conflict_and_begins_nothing(api: Api, teller: Teller) -> None:
    alice, bob = await api.open_account(), await api.open_account()
    await board(teller, request_of(alice, bob, 1_000))
    other = await alice.pay(f"wallet:{bob.wallet_id}", amount_msat=2_000, key="k")
    is_problem(other, 409, "idempotency_conflict")
    assert "Idempotency-Replayed" not in other.headers
    same = await alice.pay(f"wallet:{bob.wallet_id}", amount_msat=1_000, key="k", prefer="wait=0")
    assert (same.status_code, same.json()["waiting"]["reason"]) == (202, "opening"), "also while Temporal is away"
    assert same.headers["Idempotency-Replayed"] == "true"
    shown = await alice.get(same.headers["Location"])
    assert shown.json() == same.json()
    is_problem(await bob.get(same.headers["Location"]), 404, "not_found")


async def test_the_first_of_two_to_be_told_keeps_the_key(api: Api, teller: Teller) -> None:
    alice, bob = await api.open_account(), await api.open_account()
    first, second = request_of(alice, bob, 1_000), request_of(alice, bob, 2_000)
    for asked in (first, second, first):
        assert await board(teller, asked) == bytes.fromhex(first.body_hash)


async def test_a_worker_opens_the_one_that_was_accepted_and_not_the_other(api: Api, teller: Teller) -> None:
    alice, bob = await api.open_account(), await api.open_account()
    await teller.receive(alice, 5_000_000)
    accepted = request_of(alice, bob, 1_000)
    await board(teller, accepted)
    payments = Payments(teller.pool, chart.Chart())
    other = replace(accepted, body_hash=hash_of(alice, bob, 2_000).hex(), amount_msat=Msat(2_000))
    refused = (await payments.open_payment(other)).outcome
    assert (refused.key_conflict, refused.body_hash) == (True, accepted.body_hash)
    assert await api.database.fetchval("SELECT count(*) FROM bank.idempotency_keys WHERE key = 'k'") == 0
    assert (await payments.open_payment(accepted)).outcome.status is PaymentStatus.SETTLED
    assert (await payments.open_payment(other)).outcome.key_conflict
    balance = (await bob.get(f"/v1/wallets/{bob.wallet_id}")).json()
    assert balance["available_msat"] == 1_000


@pytest.mark.parametrize("kind", ["payment", "batch"])
async def test_a_request_of_another_kind_does_not_take_the_key_of_what_was_accepted(
    api: Api, teller: Teller, kind: Literal["payment", "batch"]
) -> None:
    alice, bob = await api.open_account(("read", "send", "receive", "admin")), await api.open_account()
    await teller.receive(alice, 5_000_000)
    accepted = request_of(alice, bob, 1_000)
    async with teller.pool.acquire() as conn:
        await note_accepted(
            conn,
            accepted.payment_id if kind == "payment" else BatchId(id_for_key("batch", AccountId(alice.id), "k")),
            LANE,
            await conn.fetchval("SELECT clock_timestamp()"),
            bytes.fromhex(accepted.body_hash),
            request=asdict(accepted),
            kind=kind,
        )
    for path, body in {
        "/v1/withdraw-links": {"wallet_id": alice.wallet_id, "amount_msat": 1_000},
        "/v1/accounts": {},
        f"/v1/accounts/{alice.id}/api-keys": {"name": "n", "scopes": ["read"]},
    }.items():
        is_problem(await alice.post(path, body, key="k"), 409, "idempotency_conflict")
    assert await api.database.fetchval("SELECT count(*) FROM bank.idempotency_keys WHERE key = 'k'") == 0
    if kind == "payment":
        opened = await Payments(teller.pool, chart.Chart()).open_payment(accepted)
        assert opened.outcome.status is PaymentStatus.SETTLED


class Unreadable(DirectSend):
    """A node that reads no invoice."""

    @property
    def calls_nodes(self) -> bool:
        return True

    async def require_readable(
        self, node: NodeName, bolt11: str, payment_hash: PaymentHash, amount_msat: Msat | None
    ) -> None:
        raise Invalid("unreadable", code="invoice_refused_by_node")


async def test_an_unreadable_invoice_does_not_take_the_key_of_an_accepted_one(api: Api, teller: Teller) -> None:
    """The invoice is read before the key is claimed: its refusal must not be the answer of a key that stands for
    another request."""
    alice, bob = await api.open_account(), await api.open_account()
    await teller.receive(alice, 5_000_000)
    accepted = request_of(alice, bob, 1_000)
    await board(teller, accepted)
    payments = Payments(teller.pool, chart.Chart(), direct_send=Unreadable({}, most=1))
    other = replace(
        accepted,
        body_hash="cd" * 32,
        payee_wallet_id=None,
        destination="lnbcrt1…",
        bolt11="lnbcrt1…",
        payment_hash=PaymentHash("ef" * 32),
    )
    refused = (await payments.open_payment(other)).outcome
    assert (refused.key_conflict, refused.body_hash) == (True, accepted.body_hash)
    assert (await payments.open_payment(accepted)).outcome.status is PaymentStatus.SETTLED
