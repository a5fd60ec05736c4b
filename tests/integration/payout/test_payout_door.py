"""Operators read the story of a payout, decide about it, and flush a queue; without Temporal and bitcoind."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import pytest_asyncio

from activities.payout import decision
from activities.payout.story import read_story
from engine.clients.bitcoind.spending import Spending
from engine.contracts.payout import DecidePayout
from engine.domain.ids import PayoutId, WithdrawalId
from tests.fixtures.postgres import Database
from tests.helpers.api import Json, User, is_problem
from tests.helpers.withdrawal.teller import outside
from tests.helpers.withdrawal.window import Window, open_window

pytestmark = pytest.mark.integration

REASON = "no block has taken it for a day"


class FakeSpending:
    """A node that knows no transaction."""

    async def mempool_entry(self, _txid: str) -> None:
        return None


@pytest_asyncio.fixture
async def window(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Window]:
    async with open_window(ledger_db, tmp_path) as window:

        async def decide_payout(decide: DecidePayout) -> None:
            story = await read_story(window.bank.pool, decide.payout_id)
            spending = cast("Spending", FakeSpending())
            await decision.carry_out(window.bank.pool, spending, story, decide, "bech32")

        window.temporal.decide_payout = decide_payout
        yield window


@pytest_asyncio.fixture
async def carol(window: Window) -> User:
    return await window.operator()


async def show(operator: User, payout_id: str) -> Json:
    answer = await operator.get(f"/v1/admin/payouts/{payout_id}")
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def decide(operator: User, payout_id: str, kind: str, *, key: str | None = None, **more: Any) -> httpx.Response:
    body = {"kind": kind, "reason": REASON, **more}
    return await operator.post(f"/v1/admin/payouts/{payout_id}/decisions", body, key=key)


async def make_payout(window: Window, *, sent: bool = True) -> tuple[PayoutId, list[Json], list[User]]:
    """Of two users, out of a coin of the first."""
    alice, bob = await window.bank.user(10**9), await window.bank.user(10**9)
    asked = [await window.asked(alice), await window.asked(bob, amount_sat=70_000, address=outside(1))]
    coin = await window.bank.coin(500_000, origins=[alice.id, "unknown"])
    made = await window.bank.seal([WithdrawalId(each["id"]) for each in asked], coin=coin)
    if sent:
        await window.bank.sign(made)
        await window.bank.send(made)
    return made, asked, [alice, bob]


async def test_the_story_of_a_payout_has_coins_bytes_and_shares(window: Window, carol: User) -> None:
    made, asked, users = await make_payout(window)
    told = await show(carol, made)
    assert told == told | {
        "id": made,
        "wallet": "hot",
        "kind": "batch",
        "speed": "standard",
        "status": "broadcast",
        "waits_for": "a block",
        "problem": None,
        "on_hold": False,
        "members": 2,
        "paid_sat": 170_000,
        "shares_sat": 330,
        "version": 1,
        "fee_sat": 330,
        "fee_booked_sat": 330,
        "rate_sat_kvb": 3_000,
        "estimate": {"rate_sat_kvb": 3_000, "source": "fixed"},
        "parent_id": None,
        "confirmations": 0,
        "children": [],
        "decisions": [],
    }
    (first,) = told["versions"]
    assert first == first | {"number": 1, "kind": "first", "in_force": True, "raw": "00", "psbt": "cHNidA=="}
    assert first["txid"] == told["txid"]
    (coin,) = first["inputs"]
    assert coin == coin | {
        "change": True,
        "opening": False,
        "origins": sorted([users[0].id, "unknown"]),
        "reserved": True,
        "spent_by": None,
    }
    members = told["member_list"]
    assert [(each["withdrawal_id"], each["account_id"], each["place"], each["vout"]) for each in members] == [
        (asked[0]["id"], users[0].id, 0, 0),
        (asked[1]["id"], users[1].id, 1, 1),
    ]
    assert sum(each["miner_fee_sat"] for each in members) == told["shares_sat"]
    assert [each["paid_sat"] for each in members] == [100_000, 70_000]
    (listed,) = (await carol.get("/v1/admin/payouts")).json()["items"]
    assert listed == {name: told[name] for name in listed}


async def test_the_version_in_force_is_the_confirmed_one_or_the_newest_that_was_sent(
    window: Window, carol: User
) -> None:
    made, asked, users = await make_payout(window)
    database = window.bank.payers.api.database
    await database.execute(
        """INSERT INTO bank.payout_versions(payout_id, number, kind, rate_sat_kvb, fee_sat, weight, change_sat,
                  change_vout, psbt, raw, txid, signed_at, broadcast_at)
           SELECT $1, n, 'bump', 3000 * n, 330 * n, 500, 50000, 0, 'x', '00', repeat(n::text, 64), now(),
                  CASE n WHEN 2 THEN now() END FROM generate_series(2, 3) n""",
        made,
    )
    told = await show(carol, made)
    assert (told["version"], told["txid"], told["fee_sat"]) == (2, "2" * 64, 660)
    assert [each["in_force"] for each in told["versions"]] == [False, True, False]
    assert [each["vout"] for each in told["member_list"]] == [1, 2]
    shown = await window.show(users[0], asked[0]["id"])
    assert (shown["txid"], shown["vout"], shown["miner_fee_sat"]) == ("2" * 64, 1, 165)
    await database.execute(
        """UPDATE bank.payouts SET status = 'confirmed', confirmed_version = 1, block_height = 99,
                  confirmed_at = now() WHERE id = $1""",
        made,
    )
    told = await show(carol, made)
    assert (told["version"], told["fee_sat"], told["confirmations"]) == (1, 330, 2)
    shown = await window.show(users[0], asked[0]["id"])
    assert (shown["txid"], shown["vout"], shown["confirmations"]) == (told["txid"], 0, 2)


async def test_payouts_are_found_by_what_they_wait_for(window: Window, carol: User) -> None:
    planned, *_ = await make_payout(window, sent=False)
    sent, asked, users = await make_payout(window)

    async def found(**query: Any) -> list[str]:
        answer = await carol.get("/v1/admin/payouts", **query)
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()["items"]]

    assert await found() == [sent, planned]
    assert await found(status="planned") == [planned]
    assert await found(speed="fast") == []
    assert await found(waits_for_operator=True) == []
    await window.bank.payers.api.database.execute(
        "UPDATE bank.payouts SET problem = 'the wallet is locked' WHERE id = $1", sent
    )
    assert await found(waits_for_operator=True, status="broadcast", speed="standard") == [sent]
    assert (await show(carol, sent))["waits_for"] == "the wallet is locked"
    listed = (await carol.get(f"/v1/admin/withdrawals/{asked[0]['id']}")).json()
    assert (listed["waits_for"], listed["payout_problem"]) == ("the wallet is locked", "the wallet is locked")
    assert (await window.show(users[0], asked[0]["id"]))["waits_for"] == "a block with its transaction"
    first = (await carol.get("/v1/admin/payouts", limit=1)).json()["next_cursor"]
    assert await found(after=first) == [planned]


async def test_an_operator_holds_resumes_and_bumps_a_payout(window: Window, carol: User) -> None:
    made, *_ = await make_payout(window)
    assert (await decide(carol, made, "hold")).json()["status"] == "done"
    assert (await show(carol, made))["waits_for"] == "an operator, who has put it on hold"
    is_problem(await decide(carol, made, "hold"), 409, "payout_not_waiting")
    assert (await decide(carol, made, "resume")).json()["status"] == "done"
    is_problem(await decide(carol, made, "resume"), 409, "payout_not_waiting")
    answer = await decide(carol, made, "bump", rate_sat_kvb=40_000, key="k")
    assert answer.status_code == 201, answer.text
    bumped = answer.json()
    assert (bumped["status"], bumped["rate_sat_kvb"], bumped["amount_sat"]) == ("done", 40_000, 174_400)
    told = await show(carol, made)
    assert told["bump_to_sat_kvb"] == 40_000
    assert [each["kind"] for each in told["decisions"]] == ["bump", "resume", "hold"]
    again = await decide(carol, made, "bump", rate_sat_kvb=40_000, key="k")
    assert again.headers["idempotency-replayed"] == "true"
    assert len(window.temporal.decided) == 3
    is_problem(await decide(carol, made, "bump", rate_sat_kvb=3_000), 409, "payout_not_waiting")


async def test_a_bump_of_a_large_payout_needs_two_people_and_a_hold_does_not(window: Window, carol: User) -> None:
    await window.rules(carol, approval_above_sat=100_000, second_operator_above_sat=150_000)
    made, *_ = await make_payout(window)
    dave = await window.operator("treasury")
    proposed = (await decide(carol, made, "bump", rate_sat_kvb=40_000)).json()
    assert (proposed["status"], proposed["operators"], proposed["payout_id"]) == ("proposed", 2, made)
    assert (await show(carol, made))["bump_to_sat_kvb"] is None
    path = f"/v1/admin/withdrawal-decisions/{proposed['id']}"
    is_problem(await carol.post(f"{path}/approve", {}), 403, "own_proposal")
    assert (await dave.post(f"{path}/approve", {"note": "yes"})).json()["status"] == "done"
    assert (await show(carol, made))["bump_to_sat_kvb"] == 40_000
    assert (await decide(carol, made, "hold")).json()["status"] == "done"


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "bump"},
        {"kind": "child"},
        {"kind": "hold", "rate_sat_kvb": 5_000},
        {"kind": "bump", "rate_sat_kvb": 999},
        {"kind": "bump", "rate_sat_kvb": 500_001},
        {"kind": "bump", "rate_sat_kvb": 2**63},
        {"kind": "bump", "rate_sat_kvb": 1.5},
        {"kind": "approve"},
        {"kind": "hold", "reason": ""},
    ],
)
async def test_a_decision_that_says_too_little_or_too_much_is_refused(window: Window, carol: User, body: Json) -> None:
    made, *_ = await make_payout(window)
    is_problem(await carol.post(f"/v1/admin/payouts/{made}/decisions", {"reason": "x", **body}), 422, "invalid_request")
    assert window.temporal.decided == []


async def test_a_payout_whose_workflow_does_not_answer_keeps_the_proposal(window: Window, carol: User) -> None:
    made, *_ = await make_payout(window)
    window.temporal.is_away = True
    is_problem(await decide(carol, made, "hold"), 503, "temporarily_unavailable")
    window.temporal.is_away = False
    is_problem(await decide(carol, made, "bump", rate_sat_kvb=40_000), 409, "decision_open")
    assert (await decide(carol, made, "hold")).json()["status"] == "done"


async def test_a_queue_is_shown_and_flushed(window: Window, carol: User) -> None:
    alice = await window.bank.user(10**9)
    await window.asked(alice, speed="fast")
    await window.asked(alice, speed="fast", amount_sat=5_000)
    window.temporal.started.clear()
    items = (await carol.get("/v1/admin/batchers")).json()["items"]
    queues = {each["speed"]: each for each in items}
    assert (queues["fast"]["waiting"], queues["fast"]["waiting_sat"]) == (2, 105_000)
    assert (queues["slow"]["waiting"], queues["slow"]["oldest_at"]) == (0, None)
    assert queues["fast"]["rate_source"].startswith("fallback")
    answer = await carol.post("/v1/admin/batchers/fast/flush", {"reason": "fees are low"})
    assert answer.status_code == 202, answer.text
    assert answer.json()["waiting"] == 2
    assert window.temporal.started == [("batcher-hot-fast", "flush")]
    (line,) = (await carol.get("/v1/admin/audit", action="batcher.flush")).json()["items"]
    assert (line["subject"], line["detail"]["reason"]) == ("batcher-hot-fast", "fees are low")
    is_problem(await carol.post("/v1/admin/batchers/now/flush", {"reason": "x"}), 422, "invalid_request")
    is_problem(await alice.post("/v1/admin/batchers/fast/flush", {"reason": "x"}), 403, "forbidden")
    support = await window.operator("support")
    is_problem(await support.post("/v1/admin/batchers/fast/flush", {"reason": "x"}), 403, "forbidden")


async def test_payouts_are_for_operators_alone(window: Window, carol: User) -> None:
    made, _, (alice, _bob) = await make_payout(window)
    for path in ("/v1/admin/payouts", f"/v1/admin/payouts/{made}", "/v1/admin/batchers"):
        is_problem(await alice.get(path), 403, "forbidden")
    is_problem(await carol.get("/v1/admin/payouts/po_nobody"), 404, "not_found")
    is_problem(await decide(carol, "po_nobody", "hold"), 404, "not_found")
    is_problem(await decide(await window.operator("support"), made, "hold"), 403, "forbidden")
