"""Fees where the money moves: the activities on a real Postgres, while the schedule changes under them."""

import asyncio
import itertools
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
import pytest_asyncio

from activities.invoice import Receipts
from activities.payment import Payments
from engine.bank.rulebook import read_current, set_in_tx
from engine.contracts.invoice import Receipt
from engine.contracts.payment import LightningAttempt, OpenedPayment, PaymentRequest, ReleasePayment, SettlePayment
from engine.domain import fee
from engine.domain.errors import InvariantBroken
from engine.domain.ids import AccountId, PaymentHash, WalletId, new_id
from engine.domain.money import Msat
from engine.domain.routing_cap import default_routing_cap
from engine.ledger import chart
from engine.ledger.checks import find_broken_rules
from engine.ledger.database import transaction
from engine.views.balance import list_entries
from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, Api, User, running_api
from tests.helpers.teller import NODE, Teller, open_teller

pytestmark = pytest.mark.integration

_numbers = itertools.count(1)
KIND_OF: dict[str, fee.Kind] = {
    "paid_internally": "internal",
    "lightning_reserved": "lightning_out",
    "lightning_settled": "lightning_out",
    "lightning_received": "lightning_in",
}


@dataclass
class Desk:
    """The activities that move money, and the operator who sets the fees."""

    api: Api
    teller: Teller
    payments: Payments = field(init=False)
    receipts: Receipts = field(init=False)

    def __post_init__(self) -> None:
        self.payments = Payments(self.teller.pool, chart.Chart())
        self.receipts = Receipts(self.teller.pool, chart.Chart())

    async def set_fees(self, content: dict[str, Any]) -> int:
        async with transaction(self.teller.pool) as conn:
            version = (await read_current(conn, "fees")).version + 1
            await set_in_tx(conn, "fees", content, version=version, note="test", set_by="test")
        return version

    async def open_user(self, funds_msat: int = 0, level: int = 0) -> User:
        user = await self.api.open_account(level=level)
        if funds_msat:
            await self.teller.receive(user, funds_msat)
        return user

    async def entries(self, ref: str) -> dict[str, int]:
        """Settled or held by the account's short name, debit +."""
        async with self.teller.pool.acquire() as conn:
            found = await list_entries(conn, ref)
        return {f"{leg.layer}:{leg.code.split(':wal_')[0]}": leg.amount_msat for leg in found}

    async def payment(self, payment_id: str) -> Any:
        return await self.api.database.fetchrow("SELECT * FROM bank.payments WHERE id = $1", payment_id)


@pytest_asyncio.fixture
async def desk(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Desk]:
    """At the end the books hold, and every fee in them is found again by its version."""
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, rate_limit_per_minute=0) as api:
        desk = Desk(api, await open_teller(api))
        yield desk
        async with desk.teller.pool.acquire() as conn:
            assert await find_broken_rules(conn) == []
        await assert_fees_are_found_again(desk)


async def assert_fees_are_found_again(desk: Desk) -> None:
    """Each posting says version, level and fee; the pure function and the income account say the same."""
    rows = await desk.api.database.fetch("SELECT version, content FROM bank.rulebooks WHERE name = 'fees'")
    schedules = {row["version"]: fee.parse_schedule(json.loads(row["content"])) for row in rows}
    booked = await desk.api.database.fetch(
        """SELECT t.template, t.external_ref, t.metadata, coalesce(p.amount_msat, i.outside_msat) AS amount_msat,
                  -coalesce(sum(e.amount) FILTER (WHERE a.kind IN ('income', 'expense')), 0) AS earned_msat
             FROM ledger.transfers t JOIN ledger.entries e ON e.transfer_id = t.id
             JOIN ledger.accounts a ON a.id = e.account_id
             LEFT JOIN bank.payments p ON p.id = t.metadata ->> 'payment'
                    OR (t.phase IN ('hold', 'settle') AND p.payment_hash = split_part(t.external_ref, ':', 2))
             LEFT JOIN bank.invoices i ON i.payment_hash = split_part(t.external_ref, ':', 2)
            WHERE t.metadata ? 'fee_version' GROUP BY 1, 2, 3, 4"""
    )
    for row in booked:
        said = json.loads(row["metadata"])
        again = fee.fee(
            schedules[said["fee_version"]], KIND_OF[row["template"]], Msat(row["amount_msat"]), said["fee_level"]
        )
        assert said["fee_msat"] == again > 0, row["external_ref"]
        assert row["earned_msat"] == (0 if row["template"] == "lightning_reserved" else again), row["external_ref"]
    silent = await desk.api.database.fetchval(
        """SELECT count(*) FROM ledger.entries e JOIN ledger.accounts a ON a.id = e.account_id
             JOIN ledger.transfers t ON t.id = e.transfer_id
            WHERE a.code = 'income:transfer-fee' AND NOT t.metadata ? 'fee_version'"""
    )
    assert silent == 0


def asked(payer: User, amount_msat: int, **fields: Any) -> PaymentRequest:
    """A request as the API makes it; to an invoice of somebody outside, unless it names a payee."""
    number = next(_numbers)
    known: dict[str, Any] = {
        "payment_id": new_id("pay"),
        "account_id": AccountId(payer.id),
        "wallet_id": WalletId(payer.wallet_id),
        "idempotency_key": f"key-{number}",
        "body_hash": secrets.token_hex(32),
        "destination": "somewhere",
        "amount_msat": Msat(amount_msat),
        "max_fee_msat": default_routing_cap(Msat(amount_msat)),
    }
    if "payee_wallet_id" not in fields:
        known |= {"bolt11": "lnbcrt1somebody", "payment_hash": PaymentHash(secrets.token_hex(32))}
    return PaymentRequest(**known | fields)


def attempt_of(opened: OpenedPayment) -> LightningAttempt:
    assert opened.attempt is not None, opened
    return opened.attempt


def settlement(request: PaymentRequest, fee_msat: int) -> SettlePayment:
    return SettlePayment(
        payment_id=request.payment_id,
        fee_msat=Msat(fee_msat),
        preimage="cd" * 32,
        payment_index=next(_numbers),
        body_hash=request.body_hash,
    )


async def test_the_worked_example_of_the_design(desk: Desk) -> None:
    """A=100,000 F=1,000 f=350 B=100; the schedule changes between hold and settlement, and nothing changes for it."""
    version = await desk.set_fees({"lightning_out": [{"flat_msat": 100}]})
    alice = await desk.open_user(250_000)
    request = asked(alice, 100_000, max_fee_msat=Msat(1_000))
    attempt = attempt_of(await desk.payments.open_payment(request))
    assert (attempt.amount_msat, attempt.max_fee_msat, attempt.service_fee_msat) == (100_000, 1_000, 100)
    assert await desk.entries(f"ln:{request.payment_hash}:hold:1") == {
        "held:liab:user": 101_100,
        "held:liab:outbox": -101_100,
    }
    await desk.set_fees({"lightning_out": [{"flat_msat": 9_999}]})
    assert attempt_of(await desk.payments.open_payment(request)) == attempt
    for _repeat in range(2):
        await desk.payments.settle_payment(settlement(request, 350))
    assert await desk.entries(f"ln:{request.payment_hash}:settle") == {
        "held:liab:outbox": 101_100,
        "held:liab:user": -101_100,
        "settled:liab:user": 100_450,
        "settled:exp:ln-routing": 350,
        "settled:asset:lnd:lnd-1:channels": -100_350,
        "settled:income:ln-fee": -450,
    }
    assert await alice.available() == 250_000 - 100_450
    row = await desk.payment(request.payment_id)
    assert (row["fee_msat"], row["max_fee_msat"], row["service_fee_msat"]) == (450, 1_100, 100)
    assert (row["fee_version"], row["fee_level"]) == (version, 0)


async def test_our_fee_is_booked_also_where_the_network_takes_none(desk: Desk) -> None:
    await desk.set_fees({"lightning_out": [{"flat_msat": 100}]})
    alice = await desk.open_user(250_000)
    request = asked(alice, 100_000)
    await desk.payments.open_payment(request)
    await desk.payments.settle_payment(settlement(request, 0))
    entries = await desk.entries(f"ln:{request.payment_hash}:settle")
    assert {code: amount for code, amount in entries.items() if code.startswith("settled")} == {
        "settled:liab:user": 100_100,
        "settled:asset:lnd:lnd-1:channels": -100_000,
        "settled:income:ln-fee": -100,
    }


async def test_a_payment_that_failed_costs_nothing(desk: Desk) -> None:
    await desk.set_fees({"lightning_out": [{"flat_msat": 100}]})
    alice = await desk.open_user(250_000)
    request = asked(alice, 100_000)
    await desk.payments.open_payment(request)
    assert await alice.available() == 250_000 - 100_000 - 5_000 - 100
    release = ReleasePayment(
        payment_id=request.payment_id,
        failure_code="no_route",
        failure_detail="",
        payment_index=1,
        body_hash=request.body_hash,
    )
    await desk.payments.release_payment(release)
    assert await alice.available() == 250_000
    assert (await desk.payment(request.payment_id))["fee_msat"] == 0


async def test_a_payment_never_costs_more_than_its_cap(desk: Desk) -> None:
    """What our fee leaves of the cap is the network's; a node that takes more than that contradicts itself."""
    await desk.set_fees({"lightning_out": [{"flat_msat": 100}]})
    alice = await desk.open_user(250_000)
    request = asked(alice, 100_000, max_fee_msat=Msat(1_000), fee_cap_msat=Msat(1_000))
    assert attempt_of(await desk.payments.open_payment(request)).max_fee_msat == 900
    with pytest.raises(InvariantBroken, match="above 900"):
        await desk.payments.settle_payment(settlement(request, 901))
    await desk.payments.settle_payment(settlement(request, 900))
    row = await desk.payment(request.payment_id)
    assert row["fee_msat"] == row["max_fee_msat"] == 1_000
    assert await alice.available() == 250_000 - 101_000


@pytest.mark.parametrize("kind", ["internal", "lightning_out"])
async def test_a_fee_above_the_cap_is_refused_for_ever_under_its_key(desk: Desk, kind: str) -> None:
    await desk.set_fees({kind: [{"flat_msat": 100}]})
    alice, bob = await desk.open_user(250_000), await desk.open_user()
    payee = {"payee_wallet_id": WalletId(bob.wallet_id)} if kind == "internal" else {}
    request = asked(alice, 1_000, fee_cap_msat=Msat(99), **payee)
    for _repeat in range(2):
        refusal = (await desk.payments.open_payment(request)).outcome.refusal
        assert refusal is not None
        assert (refusal.code, refusal.fields) == ("fee_limit_exceeded", {"fee_msat": 100, "max_fee_msat": 99})
        await desk.set_fees({})
    assert await alice.available() == 250_000
    enough = asked(alice, 1_000, fee_cap_msat=Msat(0), **payee)
    assert (await desk.payments.open_payment(enough)).outcome.refusal is None


async def test_the_needed_amount_includes_our_fee(desk: Desk) -> None:
    await desk.set_fees({"internal": [{"flat_msat": 10}], "lightning_out": [{"flat_msat": 100}]})
    alice, bob = await desk.open_user(20_000), await desk.open_user()
    inside = asked(alice, 20_000, payee_wallet_id=WalletId(bob.wallet_id))
    outside = asked(alice, 20_000, max_fee_msat=Msat(1_000))
    for request, needed_msat in ((inside, 20_010), (outside, 21_100)):
        refusal = (await desk.payments.open_payment(request)).outcome.refusal
        assert refusal is not None
        assert refusal.code == "insufficient_funds"
        assert refusal.fields == {"needed_msat": needed_msat, "available_msat": 20_000}
        assert f"{needed_msat:,}" in refusal.detail
    await desk.payments.open_payment(asked(alice, 19_990, payee_wallet_id=WalletId(bob.wallet_id)))
    assert await alice.available() == 0


async def test_levels_pay_what_their_step_says(desk: Desk) -> None:
    await desk.set_fees({"internal": [{"exempt": {"levels": [3]}}, {"flat_msat": 10}]})
    payers = [await desk.open_user(5_000, level=level) for level in (0, 3)]
    bob = await desk.open_user()
    for payer in payers:
        await desk.payments.open_payment(asked(payer, 1_000, payee_wallet_id=WalletId(bob.wallet_id)))
    assert [await payer.available() for payer in payers] == [3_990, 4_000]


async def receive(desk: Desk, user: User, amount_msat: int) -> tuple[Receipt, str]:
    """An invoice is paid from outside; the receipt as the pump hands it on."""
    made = (await user.post("/v1/invoices", {"wallet_id": user.wallet_id, "amount_msat": amount_msat})).json()
    receipt = Receipt(payment_hash=made["payment_hash"], node=NODE, received_msat=Msat(amount_msat))
    assert (await desk.receipts.credit_receipt(receipt)).credited
    return receipt, made["id"]


async def test_a_receipts_fee_is_computed_once_whatever_the_schedule_says_later(desk: Desk) -> None:
    await desk.set_fees({"lightning_in": [{"proportional_ppm": 1_000}]})
    alice = await desk.open_user()
    receipt, invoice_id = await receive(desk, alice, 300_500)
    entries = await desk.entries(f"ln:{receipt.payment_hash}:recv")
    assert entries == {
        "settled:asset:lnd:lnd-1:channels": 300_500,
        "settled:liab:user": -300_199,
        "settled:income:ln-fee": -301,
    }
    await desk.set_fees({"lightning_in": [{"flat_msat": 5_000}]})
    assert not (await desk.receipts.credit_receipt(receipt)).credited
    assert await desk.entries(f"ln:{receipt.payment_hash}:recv") == entries
    assert await alice.available() == 300_199
    shown = (await alice.get(f"/v1/invoices/{invoice_id}")).json()
    assert (shown["received_msat"], shown["fee_msat"]) == (300_500, 301)


async def test_a_receipt_smaller_than_its_fee_is_all_fee_and_one_for_nobody_is_free(desk: Desk) -> None:
    await desk.set_fees({"lightning_in": [{"flat_msat": 5_000}]})
    alice = await desk.open_user()
    receipt, _ = await receive(desk, alice, 3_000)
    assert await desk.entries(f"ln:{receipt.payment_hash}:recv") == {
        "settled:asset:lnd:lnd-1:channels": 3_000,
        "settled:income:ln-fee": -3_000,
    }
    assert await alice.available() == 0
    loose = Receipt(payment_hash=PaymentHash(secrets.token_hex(32)), node=NODE, received_msat=Msat(7_000))
    await desk.receipts.credit_receipt(loose)
    assert (await desk.entries(f"ln:{loose.payment_hash}:recv"))["settled:suspense:in"] == -7_000


async def test_by_invoice_the_payer_pays_inside_and_the_payee_what_came_from_outside_as_well(desk: Desk) -> None:
    """The invoice is paid twice, and each way of paying has its own fee."""
    await desk.set_fees({"internal": [{"flat_msat": 10}], "lightning_in": [{"flat_msat": 30}]})
    alice, bob = await desk.open_user(50_000), await desk.open_user()
    before = await alice.available()
    made = (await bob.post("/v1/invoices", {"wallet_id": bob.wallet_id, "amount_msat": 20_000})).json()
    payment_hash = PaymentHash(made["payment_hash"])
    request = asked(alice, 20_000, payment_hash=payment_hash, bolt11=made["bolt11"])
    await desk.payments.open_payment(request)
    assert (await desk.entries(f"ln:{payment_hash}:recv"))["settled:income:transfer-fee"] == -10
    assert before - await alice.available() == 20_010
    assert (await bob.get(f"/v1/invoices/{made['id']}")).json()["fee_msat"] == 0
    receipt = Receipt(payment_hash=payment_hash, node=NODE, received_msat=Msat(20_000))
    assert (await desk.receipts.credit_receipt(receipt)).paid_twice
    assert (await desk.entries(f"ln:{payment_hash}:recv:outside"))["settled:income:ln-fee"] == -30
    shown = (await bob.get(f"/v1/invoices/{made['id']}")).json()
    assert (shown["received_msat"], shown["fee_msat"]) == (40_000, 30)
    told = (await bob.get(f"/v1/wallets/{bob.wallet_id}/statement")).json()
    assert [(each["amount_msat"], each["fee_msat"]) for each in told["movements"]] == [(20_000, 0), (19_970, 30)]
    assert await bob.available() == 39_970


async def test_the_wallets_views_agree_with_each_other(desk: Desk) -> None:
    """Transactions: amount − fee in, amount + fee out. Statement: opening + movements = closing. One balance."""
    await desk.set_fees({kind: [{"flat_msat": 70}] for kind in get_args(fee.Kind)})
    alice, bob = await desk.open_user(), await desk.open_user(50_000)
    await receive(desk, alice, 300_000)
    request = asked(alice, 100_000)
    await desk.payments.open_payment(request)
    await desk.payments.settle_payment(settlement(request, 350))
    await desk.payments.open_payment(asked(alice, 20_000, payee_wallet_id=WalletId(bob.wallet_id)))
    await desk.payments.open_payment(asked(bob, 5_000, payee_wallet_id=WalletId(alice.wallet_id)))
    rows = (await alice.get(f"/v1/wallets/{alice.wallet_id}/transactions")).json()["items"]
    assert [(row["direction"], row["amount_msat"], row["fee_msat"]) for row in rows] == [
        ("in", 5_000, 0),
        ("out", 20_000, 70),
        ("out", 100_000, 420),
        ("in", 300_000, 70),
    ]
    signed = [row["amount_msat"] - row["fee_msat"] for row in rows if row["direction"] == "in"]
    signed += [-row["amount_msat"] - row["fee_msat"] for row in rows if row["direction"] == "out"]
    told = (await alice.get(f"/v1/wallets/{alice.wallet_id}/statement")).json()
    assert [(each["amount_msat"], each["fee_msat"]) for each in told["movements"]] == [
        (299_930, 70),
        (-100_420, 420),
        (-20_070, 70),
        (5_000, 0),
    ]
    assert told["closing_msat"] == sum(signed) == await alice.available()
    sums = (await desk.api.http.get("/v1/admin/ledger/trial-balance", headers=ADMIN)).json()["accounts"]
    income = {each["code"]: each["settled_msat"] for each in sums if each["kind"] == "income" and each["settled_msat"]}
    assert income == {"income:ln-fee": -(70 + 70 + 350), "income:transfer-fee": -140}


async def test_every_fee_is_of_one_version_while_two_pay_and_the_schedule_changes(desk: Desk) -> None:
    payers = [await desk.open_user(5_000_000) for _ in range(2)]
    bob = await desk.open_user()
    done = asyncio.Event()

    async def pay(payer: User) -> None:
        for _ in range(25):
            internal = asked(payer, 10_001, payee_wallet_id=WalletId(bob.wallet_id))
            outside = asked(payer, 20_002)
            await desk.payments.open_payment(internal)
            await desk.payments.open_payment(outside)
            await desk.payments.settle_payment(settlement(outside, 5))

    async def change() -> None:
        while not done.is_set():
            rate = 1_000 * (1 + next(_numbers) % 999)  # However often it changes, no more than everything.
            await desk.set_fees({kind: [{"proportional_ppm": rate}] for kind in ("internal", "lightning_out")})

    changing = asyncio.create_task(change())
    await asyncio.gather(*(pay(payer) for payer in payers))
    done.set()
    await changing
    versions = await desk.api.database.fetchval("SELECT count(DISTINCT fee_version) FROM bank.payments")
    assert versions > 5
    rows = await desk.api.database.fetch(
        """SELECT p.kind, p.amount_msat, p.service_fee_msat, p.fee_level, r.content FROM bank.payments p
             JOIN bank.rulebooks r ON r.name = 'fees' AND r.version = p.fee_version"""
    )
    assert len(rows) == 100
    for row in rows:
        schedule = fee.parse_schedule(json.loads(row["content"]))
        kind: fee.Kind = "internal" if row["kind"] == "internal" else "lightning_out"
        assert fee.fee(schedule, kind, row["amount_msat"], row["fee_level"]) == row["service_fee_msat"]
