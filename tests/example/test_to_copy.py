"""Tests to copy: one of a rule, one of a refusal, one of a repeated effect.

The first line of a module is its subject. Take the smallest world that can show the fact:

    unit          nothing but the rule
    ledger_db     a migrated PostgreSQL of the test's own, 50 ms: the books and the bank's rows
    running_api   the API in this process on such a database; Temporal, Redis and nodes are away or made up
    bank          the whole stack with real nodes, two APIs and two workers; its books are proven after the test
"""

import secrets
from pathlib import Path

import pytest

from engine.domain.money import Msat, share_ppm_ceil
from tests.fixtures.postgres import Database
from tests.fixtures.stack import Bank
from tests.helpers.api import is_problem, running_api


# The marker says what the test needs. A module with one kind of test has it once: pytestmark = pytest.mark.unit
@pytest.mark.unit
# The name is a sentence with a subject. Worked numbers are better than a formula: a reader can check them.
@pytest.mark.parametrize(("amount", "fee"), [(0, 0), (1, 1), (1_000_000, 2_500), (1_000_001, 2_501)])
def test_a_share_is_rounded_up(amount: int, fee: int) -> None:
    assert share_ppm_ceil(Msat(amount), 2_500) == Msat(fee)


# Fixtures are asked for by name. pytest-asyncio runs `async` tests as they are.
@pytest.mark.integration
async def test_a_payment_without_a_key_is_refused(ledger_db: Database, tmp_path: Path) -> None:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path) as api:
        alice, bob = await api.open_account(), await api.open_account()
        body = {"wallet_id": alice.wallet_id, "destination": f"wallet:{bob.wallet_id}", "amount_msat": 1_000}
        answer = await alice.post("/v1/payments", body)
        # A refusal is compared by its code, which is public; its sentence may change.
        is_problem(answer, 400, "idempotency_key_required")
        # Show also what did not happen.
        assert await bob.balance() == (0, 0)


# Of a repeated effect ask what the second call does.
@pytest.mark.integration
async def test_a_repeated_payment_is_answered_from_its_key(bank: Bank) -> None:
    alice, bob = await bank.open_account(funds_msat=5_000_000), await bank.open_account()
    key = secrets.token_hex(8)
    first = await alice.pay(f"wallet:{bob.wallet_id}", key=key, amount_msat=1_000)
    again = await alice.pay(f"wallet:{bob.wallet_id}", key=key, amount_msat=1_000)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (await bob.wallet())["available_msat"] == 1_000
    # What takes time is waited for as a fact: `await eventually(look, "what for")`, or `alice.final(payment_id)`.
