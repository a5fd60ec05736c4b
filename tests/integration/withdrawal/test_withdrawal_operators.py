"""Operators look at withdrawals and decide about them: over HTTP, in the real books, without Temporal."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, Json, User, is_problem
from tests.helpers.withdrawal.window import Window, open_window

pytestmark = pytest.mark.integration

PATH = "/v1/admin/withdrawal-decisions"
LARGE_SAT, HUGE_SAT = 20_000, 60_000
RULES = {"approval_above_sat": 10_000, "second_operator_above_sat": 50_000}


@pytest_asyncio.fixture
async def window(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Window]:
    async with open_window(ledger_db, tmp_path) as window:
        yield window


@pytest_asyncio.fixture
async def carol(window: Window) -> User:
    found = await window.operator()
    await window.rules(found, **RULES)
    return found


@pytest_asyncio.fixture
async def alice(window: Window) -> User:
    return await window.bank.user(10**9)


async def decide(operator: User, withdrawal: Json, kind: str, *, key: str | None = None, **more: Any) -> httpx.Response:
    path = f"/v1/admin/withdrawals/{withdrawal['id']}/decisions"
    return await operator.post(path, {"kind": kind, "reason": "seen the papers", **more}, key=key)


async def decided(operator: User, withdrawal: Json, kind: str) -> Json:
    answer = await decide(operator, withdrawal, kind)
    assert answer.status_code == 201, answer.text
    found: Json = answer.json()
    assert answer.headers["location"] == f"{PATH}/{found['id']}"
    return found


async def show(operator: User, withdrawal: Json) -> Json:
    answer = await operator.get(f"/v1/admin/withdrawals/{withdrawal['id']}")
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def test_a_large_one_waits_for_an_operator_who_lets_it_go_at_once(
    window: Window, carol: User, alice: User
) -> None:
    made = await window.asked(alice, amount_sat=LARGE_SAT)
    assert made["waits_for"] == "an operator's approval"
    assert made["approve_until"] > made["created_at"]
    decision = await decided(carol, made, "approve")
    assert decision == decision | {
        "withdrawal_id": made["id"],
        "payout_id": None,
        "kind": "approve",
        "amount_sat": LARGE_SAT,
        "operators": 1,
        "status": "done",
        "proposed_by": carol.id,
        "decided_by": carol.id,
        "note": "seen the papers",
    }
    told = await show(carol, made)
    assert (told["approval"], told["waits_for"], told["approve_until"]) == ("given", "its turn in the next batch", None)
    assert told["decisions"] == [decision]
    assert (await window.show(alice, made["id"]))["waits_for"] == "its turn in the next batch"
    is_problem(await decide(carol, made, "approve"), 409, "withdrawal_not_waiting")
    lines = (await carol.http.get("/v1/admin/audit", headers=ADMIN)).json()["items"]
    actions = [line["action"] for line in lines if line["subject"] == decision["id"]]
    assert actions == ["withdrawal_decision.approve", "withdrawal_decision.propose"]


async def test_a_huge_one_needs_two_people(window: Window, carol: User, alice: User) -> None:
    made, dave = await window.asked(alice, amount_sat=HUGE_SAT), await window.operator()
    proposed = await decided(carol, made, "approve")
    assert (proposed["status"], proposed["operators"]) == ("proposed", 2)
    assert (await show(carol, made))["approval"] == "needed"
    assert await decided(carol, made, "approve") == proposed
    is_problem(await decide(dave, made, "approve"), 409, "decision_open")
    is_problem(await carol.post(f"{PATH}/{proposed['id']}/approve", {}), 403, "own_proposal")
    answer = await dave.post(f"{PATH}/{proposed['id']}/approve", {"note": "called"})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["status"], answer.json()["decided_by"]) == ("done", dave.id)
    assert (await dave.post(f"{PATH}/{proposed['id']}/approve", {"note": "called"})).json() == answer.json()
    is_problem(await carol.post(f"{PATH}/{proposed['id']}/reject", {"reason": "no"}), 409, "decision_made")
    assert (await show(carol, made))["approval"] == "given"


async def test_a_proposal_that_is_rejected_leaves_the_withdrawal_as_it_was(
    window: Window, carol: User, alice: User
) -> None:
    made, dave = await window.asked(alice, amount_sat=HUGE_SAT), await window.operator()
    proposed = await decided(carol, made, "approve")
    answer = await dave.post(f"{PATH}/{proposed['id']}/reject", {"reason": "another address"})
    assert (answer.json()["status"], answer.json()["note"]) == ("rejected", "another address")
    is_problem(await dave.post(f"{PATH}/{proposed['id']}/approve", {}), 409, "decision_made")
    assert (await show(carol, made))["status"] == "queued"
    again = await decided(dave, made, "approve")
    assert again["id"] != proposed["id"]
    found = (await carol.get(PATH, status="proposed")).json()["items"]
    assert [each["id"] for each in found] == [again["id"]]
    assert (await carol.get(f"{PATH}/{again['id']}")).json() == again


async def test_a_rejected_withdrawal_fails_and_its_money_is_free(window: Window, carol: User, alice: User) -> None:
    made = await window.asked(alice, amount_sat=HUGE_SAT)
    assert (await decided(carol, made, "reject"))["status"] == "done"
    told = await window.show(alice, made["id"])
    assert (told["status"], told["fee_sat"], told["waits_for"]) == ("failed", 0, None)
    assert told["failure"]["code"]
    assert await alice.balance() == (10**9, 0)
    is_problem(await decide(carol, made, "reject"), 409, "withdrawal_not_waiting")
    is_problem(await window.cancel(alice, made["id"]), 409, "withdrawal_ended")


async def test_one_on_hold_waits_until_it_is_resumed(window: Window, carol: User, alice: User) -> None:
    made = await window.asked(alice, amount_sat=5_000)
    is_problem(await decide(carol, made, "resume"), 409, "withdrawal_not_waiting")
    await decided(carol, made, "hold")
    told = await show(carol, made)
    assert (told["on_hold"], told["waits_for"]) == (True, "an operator, who has put it on hold")
    is_problem(await decide(carol, made, "hold"), 409, "withdrawal_not_waiting")
    await decided(carol, made, "resume")
    assert (await show(carol, made))["on_hold"] is False
    assert [each["kind"] for each in (await show(carol, made))["decisions"]] == ["resume", "hold"]


async def test_the_same_key_finds_what_was_done(window: Window, carol: User, alice: User) -> None:
    made = await window.asked(alice, amount_sat=LARGE_SAT)
    first = await decide(carol, made, "approve", key="k")
    again = await decide(carol, made, "approve", key="k")
    assert (first.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    is_problem(await decide(carol, made, "hold", key="k"), 409, "idempotency_conflict")
    is_problem(await decide(carol, made, "approve", key="k", reason="other"), 409, "idempotency_conflict")


async def test_many_at_once_approve_once(window: Window, carol: User, alice: User) -> None:
    made = await window.asked(alice, amount_sat=LARGE_SAT)
    answers = await asyncio.gather(*(decide(carol, made, "approve") for _ in range(6)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert any(answer.status_code == 201 for answer in answers)
    done = [each for each in (await show(carol, made))["decisions"] if each["status"] == "done"]
    assert len(done) == 1


async def test_a_decision_waits_for_a_workflow_that_is_gone(window: Window, carol: User, alice: User) -> None:
    made = await window.asked(alice, amount_sat=LARGE_SAT)
    window.temporal.gone.add(made["workflow_id"])
    is_problem(await decide(carol, made, "approve"), 503, "temporarily_unavailable")
    (waiting,) = (await carol.get(PATH, status="proposed")).json()["items"]
    window.temporal.gone.clear()
    assert (await decided(carol, made, "approve"))["id"] == waiting["id"]
    assert (await show(carol, made))["approval"] == "given"


async def test_a_decision_that_comes_too_late_is_closed(
    window: Window, carol: User, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await window.asked(alice, amount_sat=LARGE_SAT)
    monkeypatch.setattr("api.service.withdrawal_decision.subject._refusal_of_withdrawal", lambda *_: None)
    await window.cancel(alice, made["id"])
    is_problem(await decide(carol, made, "approve"), 409, "withdrawal_not_waiting")
    assert (await carol.get(PATH, status="proposed")).json()["items"] == []
    (closed,) = (await carol.get(PATH, status="rejected")).json()["items"]
    assert "cancelled" in closed["note"]


async def test_after_its_time_nobody_approves_it(window: Window, carol: User, alice: User) -> None:
    made = await window.asked(alice, amount_sat=LARGE_SAT)
    await window.bank.payers.api.database.execute(
        "UPDATE bank.withdrawals SET approve_until = clock_timestamp() - interval '1 s' WHERE id = $1", made["id"]
    )
    is_problem(await decide(carol, made, "approve"), 409, "withdrawal_not_waiting")


async def test_operators_find_what_waits_for_them(window: Window, carol: User, alice: User) -> None:
    bob = await window.bank.user(10**9)
    small, large = await window.asked(alice, amount_sat=5_000), await window.asked(bob, amount_sat=LARGE_SAT)
    held = await window.asked(bob, amount_sat=6_000, speed="slow")
    await decided(carol, held, "hold")

    async def found(**query: Any) -> list[str]:
        answer = await carol.get("/v1/admin/withdrawals", **query)
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()["items"]]

    assert await found() == [held["id"], large["id"], small["id"]]
    assert await found(waits_for="approval") == [large["id"]]
    assert await found(waits_for="resume") == [held["id"]]
    assert await found(account_id=alice.id) == [small["id"]]
    assert await found(wallet_id=bob.wallet_id, speed="slow") == [held["id"]]
    assert await found(status="failed") == []
    assert await found(payout_id="po_none") == []
    first = (await carol.get("/v1/admin/withdrawals", limit=1)).json()["next_cursor"]
    assert await found(after=first) == [large["id"], small["id"]]
    for query in ({"waits_for": "x"}, {"status": "x"}, {"limit": 101}, {"unknown": 1}):
        is_problem(await carol.get("/v1/admin/withdrawals", **query), 422, "invalid_request")


async def test_only_operators_may_look_and_decide(window: Window, carol: User, alice: User) -> None:
    made, support = await window.asked(alice, amount_sat=LARGE_SAT), await window.operator("support")
    assert (await show(support, made))["id"] == made["id"]
    is_problem(await decide(support, made, "approve"), 403, "forbidden")
    is_problem(await decide(await window.operator("treasury"), made, "approve"), 403, "forbidden")
    for path in ("/v1/admin/withdrawals", f"/v1/admin/withdrawals/{made['id']}", PATH, "/v1/admin/withdrawals/rules"):
        is_problem(await alice.get(path), 403, "forbidden")
    is_problem(await carol.get("/v1/admin/withdrawals/wd_nobody"), 404, "not_found")
    is_problem(await decide(carol, {"id": "wd_nobody"}, "approve"), 404, "not_found")
    is_problem(await carol.get(f"{PATH}/wdec_nobody"), 404, "not_found")
    for bad in ({"kind": "bump"}, {"kind": "approve", "reason": " "}, {"kind": "approve", "rate_sat_kvb": 1}):
        body = {"reason": "x", **bad}
        is_problem(await carol.post(f"/v1/admin/withdrawals/{made['id']}/decisions", body), 422, "invalid_request")


async def test_rules_are_set_in_versions(window: Window, carol: User) -> None:
    path = "/v1/admin/withdrawals/rules"
    known = (await carol.get(path)).json()
    assert known["content"] == known["content"] | RULES
    body = {"content": {**known["content"], "minimum_sat": 5_000}, "note": "fees are high", "version": 3}

    async def put(body: Json) -> httpx.Response:
        return await carol.http.put(path, json=body, headers=carol.headers)

    assert (await put(body)).json()["content"]["minimum_sat"] == 5_000
    assert (await put(body)).json()["version"] == 3
    is_problem(await put(body | {"note": "other"}), 409, "version_conflict")
    bad = body | {"version": 4, "content": {**known["content"], "rate": {"floor": 1}}}
    is_problem(await put(bad), 422, "invalid_request")
