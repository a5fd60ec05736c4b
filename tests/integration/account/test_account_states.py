"""Active, locked, closed, on every path: what such an account may do, what may be done to it, what is in flight."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, User, bearer, is_problem
from tests.helpers.payer import Payers, running_payers

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture(scope="module")
async def bank(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Payers]:
    async with running_payers(shared_ledger_db, tmp_path_factory.mktemp("api")) as payers:
        yield payers


async def change(bank: Payers, user: User, headers: dict[str, str] | None = None, **body: Any) -> Any:
    return await bank.api.http.patch(f"/v1/admin/accounts/{user.id}", json=body, headers=headers or ADMIN)


async def changed(bank: Payers, user: User, **body: Any) -> dict[str, Any]:
    answer = await change(bank, user, **body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def trail(bank: Payers, user: User) -> list[tuple[str, dict[str, Any]]]:
    rows = await bank.pool.fetch("SELECT action, detail FROM bank.audit WHERE account_id = $1 ORDER BY id", user.id)
    opening = ("account.open", "key.make")
    return [(row["action"], row["detail"]) for row in rows if row["action"] not in opening]


async def test_a_locked_account_sends_nothing_and_receives_on_every_path(bank: Payers) -> None:
    alice, bob = await bank.api.open_account(username="lock_alice"), await bank.api.open_account()
    await bank.fund(alice, 1_000_000)
    await bank.fund(bob, 1_000_000)
    assert (await changed(bank, alice, status="locked", note="lost phone"))["status"] == "locked"
    assert await bank.outcome(alice, bob, 1_000) == "account_locked"
    assert await bank.outcome(alice, None, 1_000) == "account_locked"
    asked = {"wallet_id": alice.wallet_id, "destination": f"wallet:{bob.wallet_id}", "amount_msat": 1_000}
    is_problem(await alice.post("/v1/payments/quote", asked), 409, "account_locked")
    assert await bank.outcome(bob, alice, 5_000) == "settled"
    made = (await alice.post("/v1/invoices", {"wallet_id": alice.wallet_id, "amount_msat": 7_000})).json()
    inside = await bank.outcome(bob, None, 7_000, bolt11=made["bolt11"], payment_hash=made["payment_hash"])
    assert inside == "settled"
    other = (await alice.post("/v1/invoices", {"wallet_id": alice.wallet_id, "amount_msat": 9_000})).json()
    assert (await bank.receive(other["payment_hash"], 9_000)).wallet_id == alice.wallet_id
    assert await alice.available() == 1_000_000 + 5_000 + 7_000 + 9_000
    assert (await alice.get("/v1/account")).json()["status"] == "locked"
    assert (await changed(bank, alice, status="active"))["status"] == "active"
    assert await bank.outcome(alice, bob, 1_000) == "settled"
    assert await trail(bank, alice) == [
        ("account.lock", {"before": "active", "note": "lost phone"}),
        ("account.unlock", {"before": "locked", "note": None}),
    ]


async def test_a_payment_in_flight_when_its_account_is_locked_ends_as_it_would_have(bank: Payers) -> None:
    alice = await bank.api.open_account()
    await bank.fund(alice, 1_000_000)
    paid, failed = await bank.pay(alice, None, 100_000), await bank.pay(alice, None, 200_000)
    await changed(bank, alice, status="locked")
    await bank.settle(paid, fee_msat=50)
    await bank.release(failed)
    assert await alice.available() == 1_000_000 - 100_050


async def test_a_lock_and_payments_at_once_are_before_or_after_each_other(bank: Payers) -> None:
    alice, bob = await bank.api.open_account(), await bank.api.open_account()
    await bank.fund(alice, 1_000_000)
    for _ in range(3):
        before = await bob.available()
        calls = [bank.outcome(alice, bob, 1_000) for _ in range(10)]
        answers = await asyncio.gather(*calls[:5], changed(bank, alice, status="locked"), *calls[5:])
        outcomes = [answer for answer in answers if isinstance(answer, str)]
        assert set(outcomes) <= {"settled", "account_locked"}
        assert await bob.available() - before == 1_000 * outcomes.count("settled")
        assert await bank.outcome(alice, bob, 1_000) == "account_locked"
        await changed(bank, alice, status="active")


async def test_the_books_refuse_whoever_was_locked_after_he_was_asked_for(bank: Payers) -> None:
    """The bank's row still says active, as a payment saw it that was opened a moment before."""
    alice, bob = await bank.api.open_account(), await bank.api.open_account()
    await bank.fund(alice, 1_000_000)
    await changed(bank, alice, status="locked")
    await bank.api.database.execute("UPDATE bank.accounts SET status = 'active' WHERE id = $1", alice.id)
    opened = await bank.pay(alice, bob, 1_000)
    assert opened.outcome.refusal is not None
    assert opened.outcome.refusal.code == "account_locked"
    assert opened.outcome.refusal.fields == {"account_status": "locked"}


async def test_closing_needs_an_account_with_nothing_on_it_or_promised(bank: Payers) -> None:
    alice, bob = await bank.api.open_account(), await bank.api.open_account()
    await bank.fund(alice, 106_000)
    problem = is_problem(await change(bank, alice, status="closed"), 409, "account_not_empty")
    assert (problem["balance_msat"], problem["held_msat"], problem["incoming_msat"]) == (106_000, 0, 0)
    held = await bank.pay(alice, None, 100_000)
    problem = is_problem(await change(bank, alice, status="closed"), 409, "account_not_empty")
    assert (problem["balance_msat"], problem["held_msat"]) == (106_000, 105_000)
    await bank.settle(held, fee_msat=5_000)
    assert (await alice.get("/v1/account")).json()["status"] == "active"
    assert await bank.outcome(alice, bob, 1_000) == "settled"
    assert (await changed(bank, alice, status="closed", note="bye"))["status"] == "closed"
    assert await trail(bank, alice) == [("account.close", {"before": "active", "cancelled_invoices": 0, "note": "bye"})]


async def test_a_closed_account_reads_and_does_nothing_else_for_ever(bank: Payers) -> None:
    alice, bob = await bank.api.open_account(username="closed_alice"), await bank.api.open_account()
    await bank.fund(bob, 1_000_000)
    wallet = {"wallet_id": alice.wallet_id}
    made = (await alice.post("/v1/invoices", {**wallet, "amount_msat": 7_000})).json()
    late = (await alice.post("/v1/invoices", {**wallet, "amount_msat": 8_000})).json()
    await changed(bank, alice, status="closed")
    assert (await alice.get(f"/v1/invoices/{made['id']}")).json()["status"] == "cancelled"
    notes = await bank.pool.fetch("SELECT payment_hash FROM bank.node_cancellations WHERE done_at IS NULL")
    assert {made["payment_hash"], late["payment_hash"]} <= {note["payment_hash"] for note in notes}
    assert await bank.outcome(alice, bob, 1_000) == "account_locked"
    is_problem(await alice.post("/v1/invoices", wallet), 409, "account_locked")
    assert await bank.outcome(bob, alice, 1_000) == "payee_closed"
    asked = {"wallet_id": bob.wallet_id, "destination": f"wallet:{alice.wallet_id}", "amount_msat": 1_000}
    is_problem(await bob.post("/v1/payments/quote", asked), 409, "payee_closed")
    paid = await bank.outcome(bob, None, 7_000, bolt11=made["bolt11"], payment_hash=made["payment_hash"])
    assert paid == "invoice_cancelled"
    for body in ({"status": "active"}, {"status": "locked"}, {"level": 3}):
        is_problem(await change(bank, alice, **body), 409, "account_closed")
    assert (await changed(bank, alice, status="closed"))["status"] == "closed"  # a repeat changes nothing
    assert len(await trail(bank, alice)) == 1
    assert (await alice.get(f"/v1/wallets/{alice.wallet_id}/statement")).status_code == 200


async def test_money_that_still_comes_to_a_closed_account_waits_in_suspense(bank: Payers) -> None:
    alice = await bank.api.open_account()
    made = (await alice.post("/v1/invoices", {"wallet_id": alice.wallet_id, "amount_msat": 7_000})).json()
    await changed(bank, alice, status="closed")
    query = "SELECT -settled FROM ledger.trial_balance WHERE code = 'suspense:in'"
    before = await bank.pool.fetchval(query)
    credited = await bank.receive(made["payment_hash"], 7_000)
    assert (credited.credited, credited.wallet_id) == (True, None)  # no wallet: the workflow asks for an operator
    assert (await bank.receive(made["payment_hash"], 7_000)).credited is False
    assert await bank.pool.fetchval(query) - before == 7_000
    assert await alice.available() == 0


async def test_receipts_and_payments_against_a_closing_lose_nothing(bank: Payers) -> None:
    bob = await bank.api.open_account()
    await bank.fund(bob, 1_000_000)
    for _ in range(6):
        alice = await bank.api.open_account()
        made = (await alice.post("/v1/invoices", {"wallet_id": alice.wallet_id, "amount_msat": 7_000})).json()
        suspense = "SELECT -settled FROM ledger.trial_balance WHERE code = 'suspense:in'"
        before = await bank.pool.fetchval(suspense)
        receipt, inside, closing = await asyncio.gather(
            bank.receive(made["payment_hash"], 7_000),
            bank.outcome(bob, alice, 1_000),
            change(bank, alice, status="closed"),
        )
        in_suspense = await bank.pool.fetchval(suspense) - before
        got = await alice.available()
        assert receipt.credited
        assert inside in {"settled", "payee_closed"}
        if closing.status_code == 200:
            assert (got, in_suspense, inside) == (0, 7_000, "payee_closed")
        else:
            assert (got, in_suspense) == (7_000 + 1_000 * (inside == "settled"), 0)


async def test_a_payee_closed_after_he_was_asked_for_is_refused_by_the_books(bank: Payers) -> None:
    alice, bob = await bank.api.open_account(), await bank.api.open_account()
    await bank.fund(bob, 1_000_000)
    await changed(bank, alice, status="closed")
    await bank.api.database.execute("UPDATE bank.accounts SET status = 'active' WHERE id = $1", alice.id)
    assert await bank.outcome(bob, alice, 1_000) == "payee_closed"
    assert await bank.outcome(alice, bob, 1_000) == "account_locked"


async def test_each_role_changes_what_it_may(bank: Payers) -> None:
    alice, clerk = await bank.api.open_account(), await bank.api.open_account()
    support = bearer(await bank.api.make_key(clerk.id, ("support",)))
    finance = bearer(await bank.api.make_key(clerk.id, ("finance",)))
    for headers in (alice.headers, finance):
        is_problem(await change(bank, alice, headers, status="locked"), 403, "forbidden")
    assert (await change(bank, alice, support, status="locked")).status_code == 200
    assert (await change(bank, alice, support, status="active")).status_code == 200
    for body in ({"status": "closed"}, {"level": 2}, {"status": "locked", "level": 2}):
        is_problem(await change(bank, alice, support, **body), 403, "forbidden")
    assert (await changed(bank, alice, level=2, status="locked", note="papers"))["level"] == 2
    assert [action for action, _ in await trail(bank, alice)] == [
        "account.lock",
        "account.unlock",
        "account.set_level",
        "account.lock",
    ]
    nonsense: list[dict[str, Any]] = [
        {},
        {"status": "frozen"},
        {"level": 10},
        {"level": True},
        {"status": None},
        {"note": "x"},
    ]
    for body in [*nonsense, {"status": "locked", "x": 1}]:
        is_problem(await change(bank, alice, **body), 422, "invalid_request")
    nobody = User(alice.http, "acct_nobody", "", {})
    is_problem(await change(bank, nobody, status="locked"), 404, "not_found")


async def test_operators_find_accounts(bank: Payers) -> None:
    users = [await bank.api.open_account(username=f"Find_{n}", external_id=f"crm-{n}", level=7) for n in range(3)]
    await changed(bank, users[0], status="locked")
    clerk = await bank.api.open_account()
    support = bearer(await bank.api.make_key(clerk.id, ("support",)))

    async def found(**query: Any) -> list[str]:
        answer = await bank.api.http.get("/v1/admin/accounts", params=query, headers=support)
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["items"]]

    newest_first = [user.id for user in reversed(users)]
    assert await found(q="find_") == newest_first
    assert await found(q="crm-1") == [users[1].id]
    assert await found(q=users[2].id[:15]) == [users[2].id]
    assert await found(q="%") == []
    assert await found(level=7, status="locked") == [users[0].id]
    first = (await bank.api.http.get("/v1/admin/accounts?level=7&limit=2", headers=support)).json()
    assert await found(level=7, limit=2, after=first["next_cursor"]) == [users[0].id]
    is_problem(
        await bank.api.http.get(f"/v1/admin/accounts?level=6&after={first['next_cursor']}", headers=support),
        422,
        "invalid_request",
    )
    one = (await bank.api.http.get(f"/v1/admin/accounts/{users[0].id}", headers=support)).json()
    assert one == {**(await users[0].get("/v1/account")).json()}
    is_problem(await bank.api.http.get("/v1/admin/accounts", headers=users[0].headers), 403, "forbidden")
    is_problem(await bank.api.http.get("/v1/admin/accounts/acct_x", headers=support), 404, "not_found")
