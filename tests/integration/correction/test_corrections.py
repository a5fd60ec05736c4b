"""Two operators put the books right, on the real stack: what is posted, what is refused, and that it happens once."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
import pytest_asyncio

from engine.contracts import workflow_ids
from engine.domain.ids import CorrectionId
from engine.ledger.database import Connection
from tests.fixtures.stack import Account, Bank, Json, eventually
from tests.helpers.operator import FEES, PATH, Operator, new_key, operator

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest_asyncio.fixture
async def carol(bank: Bank) -> Operator:
    return await operator(bank)


@pytest_asyncio.fixture
async def dave(bank: Bank) -> Operator:
    return await operator(bank)


@pytest_asyncio.fixture
async def alice(bank: Bank, carol: Operator, dave: Operator) -> AsyncIterator[Account]:
    """A user with 1,000,000 msat that came from our income by a correction."""
    alice = await bank.open_account()
    funded = await dave.approve(await carol.propose(FEES, wallet_of(alice), 1_000_000))
    assert funded.json()["status"] == "posted", funded.text
    yield alice


def wallet_of(account: Account) -> str:
    return f"liab:user:{account.wallet_id}"


async def available(account: Account) -> int:
    return int((await account.wallet())["available_msat"])


async def story(bank: Bank, ref: str) -> Json:
    answer = await bank.http.get(f"/v1/admin/ledger/transfers/{ref}", headers=bank.admin)
    assert answer.status_code == 200, answer.text
    told: Json = answer.json()
    return told


def legs(step: Json) -> dict[str, int]:
    return {leg["account"]: leg["amount_msat"] for leg in step["entries"]}


async def shown(bank: Bank, correction: Json) -> Json:
    answer = await bank.http.get(f"{PATH}/{correction['id']}", headers=bank.admin)
    assert answer.status_code == 200, answer.text
    told: Json = answer.json()
    return told


def is_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


async def moved(bank: Bank, correction: Json) -> int:
    """How many transfers of this correction stand in the books."""
    count: int = await bank.database.fetchval(
        "SELECT count(*) FROM ledger.transfers WHERE metadata ->> 'correction' = $1", correction["id"]
    )
    return count


async def test_a_correction_passes_through_suspense_with_both_names(
    bank: Bank, carol: Operator, dave: Operator
) -> None:
    bob = await bank.open_account()
    proposed = await carol.propose(FEES, wallet_of(bob), 12_345, reason="fee taken twice", reference="letter 7")
    assert await moved(bank, proposed) == 0
    answer = await dave.approve(proposed, "compared")
    assert answer.status_code == 200, answer.text
    posted = answer.json()
    refs = [f"corr:{proposed['id']}:out", f"corr:{proposed['id']}:in"]
    assert (posted["status"], posted["approved_by"], posted["transfers"]) == ("posted", dave.id, refs)
    assert [(line["event"], line["actor"], line["note"]) for line in posted["trail"]] == [
        ("proposed", carol.id, "fee taken twice"),
        ("approved", dave.id, "compared"),
        ("posted", "correction", ", ".join(refs)),
    ]
    told = await story(bank, refs[1])
    assert (told["correction_ids"], told["steps"]) == ([proposed["id"]], (await story(bank, refs[0]))["steps"])
    first, second = told["steps"]
    assert legs(first) == {FEES: 12_345, "suspense:recon:operator": -12_345}
    assert legs(second) == {"suspense:recon:operator": 12_345, wallet_of(bob): -12_345}
    for step in (first, second):
        assert (step["description"], step["workflow_id"]) == ("fee taken twice", f"correction-{proposed['id']}")
        assert (step["metadata"]["proposed_by"], step["metadata"]["approved_by"]) == (carol.id, dave.id)
        assert step["metadata"]["reference"] == "letter 7"
    await is_seen_by_its_owner(bob, proposed)
    await is_in_the_audit_trail(bank, bob, proposed, carol, dave)


async def is_seen_by_its_owner(bob: Account, proposed: Json) -> None:
    assert await available(bob) == 12_345
    (row,) = (await bob.get(f"/v1/wallets/{bob.wallet_id}/transactions")).json()["items"]
    assert (row["kind"], row["direction"], row["amount_msat"]) == ("adjustment", "in", 12_345)
    (line,) = (await bob.get(f"/v1/wallets/{bob.wallet_id}/statement")).json()["movements"]
    assert (line["kind"], line["amount_msat"], line["memo"]) == ("adjustment", 12_345, "fee taken twice")
    assert row["reference"] == line["reference"] == proposed["id"]


async def is_in_the_audit_trail(bank: Bank, bob: Account, proposed: Json, carol: Operator, dave: Operator) -> None:
    told = (await bank.http.get("/v1/admin/audit", params={"account": bob.id}, headers=bank.admin)).json()["items"]
    assert [(line["action"], line["operator"], line["subject"]) for line in told[:2]] == [
        ("correction.approve", dave.id, proposed["id"]),
        ("correction.propose", carol.id, proposed["id"]),
    ]


async def test_money_in_suspense_already_needs_one_transfer(bank: Bank, carol: Operator, dave: Operator) -> None:
    for debit, credit in ((FEES, "suspense:in"), ("suspense:in", FEES)):
        proposed = await carol.propose(debit, credit, 5_000)
        posted = (await dave.approve(proposed)).json()
        assert (posted["status"], posted["transfers"]) == ("posted", [f"corr:{proposed['id']}"])
        (step,) = (await story(bank, posted["transfers"][0]))["steps"]
        assert legs(step) == {debit: 5_000, credit: -5_000}


async def test_capital_needs_two_of_the_treasury(bank: Bank) -> None:
    """It comes and goes again, because the node has not got it."""
    tom, tina, clerk = [await operator(bank, role) for role in ("treasury", "treasury", "finance")]
    place = "asset:lnd:lnd-1:onchain"
    for debit, credit in ((place, "equity:capital"), ("equity:capital", place)):
        proposed = await tom.propose(debit, credit, 500_000_000, kind="capital")
        is_problem(await clerk.approve(proposed), 403, "forbidden")
        is_problem(await tom.approve(proposed), 403, "own_proposal")
        posted = (await tina.approve(proposed)).json()
        assert (posted["status"], posted["transfers"]) == ("posted", [f"capital:{proposed['id']}"])
        (step,) = (await story(bank, posted["transfers"][0]))["steps"]
        assert legs(step) == {debit: 500_000_000, credit: -500_000_000}


async def test_nobody_approves_his_own_with_whatever_key(bank: Bank, carol: Operator) -> None:
    proposed = await carol.propose(FEES, "suspense:in", 1)
    second_key = replace(carol, headers=await new_key(bank, carol.id, "finance", "admin"))
    for same in (carol, second_key):
        is_problem(await same.approve(proposed), 403, "own_proposal")
    bootstrap = Operator(bank, "admin", bank.admin)
    by_bootstrap = await bootstrap.propose(FEES, "suspense:in", 1)
    is_problem(await bootstrap.approve(by_bootstrap), 403, "own_proposal")
    for each in (proposed, by_bootstrap):
        assert ((await shown(bank, each))["status"], await moved(bank, each)) == ("proposed", 0)
    taken_back = await second_key.reject(proposed, "my mistake")
    assert (taken_back.json()["status"], taken_back.json()["rejected_by"]) == ("rejected", carol.id)
    assert (await bootstrap.reject(by_bootstrap)).status_code == 200


async def test_a_repeat_is_a_repeat_and_a_late_word_is_refused(
    bank: Bank, alice: Account, carol: Operator, dave: Operator
) -> None:
    body = {"kind": "correction", "debit": wallet_of(alice), "credit": FEES, "amount_msat": 7, "reason": "x"}
    key = secrets.token_hex(8)
    answers = await asyncio.gather(*(carol.post("", body, key=key) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    is_problem(await carol.post("", {**body, "amount_msat": 8}, key=key), 409, "idempotency_conflict")
    proposed = answers[0].json()
    first = await dave.approve(proposed, "first")
    assert (await dave.approve(proposed, "again")).json() == first.json()
    erin = await operator(bank)
    is_problem(await erin.approve(proposed), 409, "correction_decided")
    is_problem(await dave.reject(proposed), 409, "correction_decided")
    is_problem(await carol.reject(proposed), 409, "correction_decided")
    replay = await carol.post("", body, key=key)
    assert (replay.status_code, replay.json()) == (201, first.json())
    is_problem(await dave.approve({"id": "corr_none"}), 404, "not_found")
    assert await available(alice) == 1_000_000 - 7


async def test_two_approvals_at_once_post_once(bank: Bank, alice: Account, carol: Operator, dave: Operator) -> None:
    erin = await operator(bank)
    proposed = await carol.propose(wallet_of(alice), FEES, 100_000)
    answers = await asyncio.gather(*(who.approve(proposed) for who in (dave, erin) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [409] * 3
    assert (await moved(bank, proposed), await available(alice)) == (2, 900_000)


async def test_exactly_one_of_approval_and_rejection_at_once_counts(
    bank: Bank, alice: Account, carol: Operator, dave: Operator
) -> None:
    erin, left = await operator(bank), 1_000_000
    for _ in range(5):
        proposed = await carol.propose(wallet_of(alice), FEES, 1_000)
        answers = await asyncio.gather(dave.approve(proposed), erin.reject(proposed))
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        posted = answers[0].status_code == 200
        left -= 1_000 if posted else 0
        assert (await shown(bank, proposed))["status"] == ("posted" if posted else "rejected")
        assert (await moved(bank, proposed), await available(alice)) == (2 if posted else 0, left)


async def test_below_a_users_floor_the_books_refuse_and_nothing_moves(
    bank: Bank, alice: Account, carol: Operator, dave: Operator
) -> None:
    proposed = await carol.propose(wallet_of(alice), FEES, 1_000_001)
    refused = (await dave.approve(proposed)).json()
    assert (refused["status"], refused["refusal"]["code"]) == ("refused", "insufficient_funds")
    assert (refused["approved_by"], refused["transfers"]) == (dave.id, [])
    assert [line["event"] for line in refused["trail"]] == ["proposed", "approved", "refused"]
    assert (await moved(bank, proposed), await available(alice)) == (0, 1_000_000)
    assert (await dave.approve(proposed)).json() == refused


async def test_a_frozen_wallet_pays_nothing_and_a_closed_account_gets_nothing(
    bank: Bank, alice: Account, carol: Operator, dave: Operator
) -> None:
    ledger_id = await bank.database.fetchval(
        "SELECT ledger_account_id FROM bank.wallets WHERE id = $1", alice.wallet_id
    )
    await bank.database.execute("SELECT ledger.set_frozen($1, true)", ledger_id)
    refused = (await dave.approve(await carol.propose(wallet_of(alice), FEES, 1))).json()
    assert (refused["status"], refused["refusal"]["code"]) == ("refused", "account_locked")
    assert (await dave.approve(await carol.propose(FEES, wallet_of(alice), 1))).json()["status"] == "posted"
    await bank.database.execute("SELECT ledger.set_frozen($1, false)", ledger_id)
    await bank.database.execute("UPDATE bank.accounts SET status = 'closed' WHERE id = $1", alice.id)
    refused = (await dave.approve(await carol.propose(FEES, wallet_of(alice), 1))).json()
    assert (refused["status"], refused["refusal"]["code"]) == ("refused", "account_locked")
    assert (await dave.approve(await carol.propose(wallet_of(alice), FEES, 1_000_001))).json()["status"] == "posted"


async def test_workers_killed_between_approval_and_posting(
    bank: Bank, alice: Account, carol: Operator, dave: Operator
) -> None:
    """Alice's balance is locked by somebody else, so the posting waits while the workers die."""
    proposed = await carol.propose(wallet_of(alice), FEES, 250_000)
    async with bank.database.acquire() as locking:
        async with locking.transaction():
            await hold_balance(locking, alice)
            approving = asyncio.create_task(dave.approve(proposed))

            async def approved() -> bool | None:
                return True if (await shown(bank, proposed))["status"] == "approved" else None

            await eventually(approved, "the approval to be kept")
            await asyncio.gather(*(asyncio.to_thread(bank.stack.kill, f"worker-{number}") for number in (1, 2)))
            assert await moved(bank, proposed) == 0
        answer = await approving

    async def posted() -> Json | None:
        told = await shown(bank, proposed)
        return told if told["status"] == "posted" else None

    told = await eventually(posted, "the correction to be posted")
    assert [line["event"] for line in told["trail"]] == ["proposed", "approved", "posted"]
    assert answer.status_code in {200, 503}, answer.text
    assert (await dave.approve(proposed)).json() == told
    assert (await moved(bank, proposed), await available(alice)) == (2, 750_000)


async def hold_balance(conn: Connection, account: Account) -> None:
    await conn.execute(
        """SELECT b.account_id FROM ledger.balances b JOIN bank.wallets w ON w.ledger_account_id = b.account_id
            WHERE w.id = $1 FOR UPDATE OF b""",
        account.wallet_id,
    )


async def test_an_operator_who_asked_for_a_reconciliation_is_told(bank: Bank, carol: Operator) -> None:
    asked = {**carol.headers, "Idempotency-Key": secrets.token_hex(8)}
    started = await bank.http.post("/v1/admin/reconciliation", headers=asked)
    assert started.status_code == 202, started.text

    async def told() -> Json | None:
        query = {"operator": carol.id, "action": "reconciliation.start"}
        lines = (await bank.http.get("/v1/admin/audit", params=query, headers=bank.admin)).json()["items"]
        return lines[0] if lines else None

    assert (await eventually(told, "the line in the audit trail"))["subject"] == started.json()["id"]


async def test_waiting_corrections_are_listed_and_the_workflow_says_so(
    bank: Bank, carol: Operator, dave: Operator
) -> None:
    proposed = [await carol.propose(FEES, "suspense:in", number + 1) for number in range(3)]
    page = (await dave.bank.http.get(PATH, params={"status": "proposed", "limit": 2}, headers=dave.headers)).json()
    assert [each["id"] for each in page["items"]] == [proposed[2]["id"], proposed[1]["id"]]
    following = {"status": "proposed", "limit": 1, "after": page["next_cursor"]}
    again = (await dave.bank.http.get(PATH, params=following, headers=dave.headers)).json()
    assert [each["id"] for each in again["items"]] == [proposed[0]["id"]]
    assert workflow_ids.correction(CorrectionId(proposed[0]["id"])) == proposed[0]["workflow_id"]
    for each in proposed:
        assert (await dave.reject(each)).json()["status"] == "rejected"
