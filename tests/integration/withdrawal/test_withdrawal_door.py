"""Withdrawals over HTTP: asked for, shown, listed and cancelled, in the real books and without Temporal."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engine.domain import bech32
from engine.domain.ids import AccountId, WalletId, WithdrawalId
from tests.fixtures.postgres import Database
from tests.helpers.address.pool import address_of, fill_pool
from tests.helpers.api import ADMIN, User, bearer, is_problem
from tests.helpers.limit import set_limits, set_rules
from tests.helpers.withdrawal.teller import SAT, outside
from tests.helpers.withdrawal.window import Window, open_window

pytestmark = pytest.mark.integration

MAINNET = "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"
NO_POINT = address_of(0, taproot=True)
LATER = bech32.write("bcrt", [16, *bech32.to_words(bytes(2))], modified=True)
"""Of a witness version that nobody can spend yet."""


@pytest_asyncio.fixture
async def window(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Window]:
    async with open_window(ledger_db, tmp_path) as window:
        yield window


@pytest_asyncio.fixture
async def alice(window: Window) -> User:
    return await window.bank.user(10**9)


async def give_address(window: Window, user: User, number: int = 7) -> str:
    await fill_pool(window.bank.payers.api.database, 1, start=number)
    await window.bank.payers.api.database.execute(
        """UPDATE bank.addresses SET wallet_id = $2, account_id = $3, purpose = 'api', given_at = clock_timestamp()
            WHERE address = $1""",
        address_of(number),
        WalletId(user.wallet_id),
        AccountId(user.id),
    )
    return address_of(number)


async def test_a_withdrawal_from_its_hold_to_its_transaction(window: Window, alice: User) -> None:
    await set_rules(window.bank.payers, "fees", {"withdrawal": [{"flat_msat": 300_000}]})
    made = await window.asked(alice, memo="savings", external_id="order 7")
    assert made == made | {
        "wallet_id": alice.wallet_id,
        "address": outside(),
        "kind": "onchain",
        "status": "queued",
        "amount_sat": 100_000,
        "paid_sat": None,
        "fee_sat": None,
        "miner_fee_sat": None,
        "service_fee_sat": 300,
        "txid": None,
        "vout": None,
        "batch_id": None,
        "confirmations": 0,
        "waits_for": "its turn in the next batch",
        "failure": None,
        "speed": "standard",
        "alone": False,
        "unlinked": False,
        "send_all": False,
        "fee_from": "balance",
        "memo": "savings",
        "external_id": "order 7",
        "approve_until": None,
        "ended_at": None,
    }
    assert made["held_sat"] == 100_000 + made["max_fee_sat"]
    assert await alice.balance() == (10**9, made["held_sat"] * SAT)
    other = await window.asked(alice, amount_sat=50_000)
    txid = await window.sent(made, other)
    told = await window.show(alice, made["id"])
    assert told == told | {
        "status": "broadcast",
        "txid": txid,
        "vout": 0,
        "paid_sat": 100_000,
        "miner_fee_sat": 165,
        "fee_sat": 465,
        "held_sat": 0,
        "waits_for": "a block with its transaction",
    }
    assert (await window.show(alice, other["id"]))["vout"] == 1
    assert told["batch_id"] is not None
    assert await alice.balance() == (10**9 - (150_000 + 330 + 600) * SAT, 0)
    is_problem(await window.cancel(alice, made["id"]), 409, "already_batched")


async def test_a_repeat_gets_the_first_answer_and_another_body_a_conflict(window: Window, alice: User) -> None:
    first = await window.ask(alice, key="k")
    again = await window.ask(alice, key="k")
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    is_problem(await window.ask(alice, key="k", amount_sat=100_001), 409, "idempotency_conflict")
    answers = await asyncio.gather(*(window.ask(alice, key="together") for _ in range(5)))
    assert {answer.json()["id"] for answer in answers} == {answers[0].json()["id"]}
    assert (await window.show(alice, first.json()["id"]))["status"] == "queued"
    assert len((await alice.get("/v1/withdrawals")).json()["items"]) == 2


async def test_a_refusal_is_the_answer_of_its_key_for_ever(window: Window, alice: User) -> None:
    refused = await window.ask(alice, key="poor", amount_sat=10_000_000)
    assert "idempotency-replayed" not in refused.headers
    is_problem(refused, 409, "insufficient_funds")
    await window.bank.payers.fund(alice, 10**11)
    again = await window.ask(alice, key="poor", amount_sat=10_000_000)
    is_problem(again, 409, "insufficient_funds")
    assert again.headers["idempotency-replayed"] == "true"
    await set_limits(window.bank.payers, {"0": {"withdrawal": {"day_sat": 1_000}}})
    is_problem(await window.ask(alice), 409, "limit_exceeded")
    is_problem(await window.ask(alice, max_fee_sat=1), 409, "fee_limit_exceeded")
    assert (await alice.balance())[1] == 0
    assert (await alice.get("/v1/withdrawals")).json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"address": MAINNET}, 422, "wrong_network"),
        ({"address": MAINNET[:-1] + "p"}, 422, "invalid_destination"),
        ({"address": outside()[:-1] + ("q" if outside()[-1] != "q" else "p")}, 422, "invalid_destination"),
        ({"address": outside()[:20] + outside()[20:].upper()}, 422, "invalid_destination"),
        ({"address": NO_POINT}, 422, "invalid_destination"),
        ({"address": "@bob"}, 422, "invalid_destination"),
        ({"address": "bitcoin:?amount=1"}, 422, "invalid_destination"),
        ({"address": f"bitcoin:{outside()}?req-x=1"}, 422, "invalid_destination"),
        ({"address": f"bitcoin:{outside()}?amount=0.5"}, 422, "amount_mismatch"),
        ({"address": f"bitcoin:{outside()}?amount=0.5", "amount_sat": None, "send_all": True}, 422, "amount_mismatch"),
        ({"amount_sat": None}, 422, "amount_required"),
        ({"send_all": True}, 422, "invalid_request"),
        ({"amount_sat": 293}, 422, "dust_amount"),
        ({"amount_sat": 999}, 422, "amount_too_small"),
        *(({"amount_sat": bad}, 422, "invalid_request") for bad in (0, -1, 1.5, "1", 2**53, 2**63, True)),
        *(({"max_fee_sat": bad}, 422, "invalid_request") for bad in (-1, 0.5, 2**53)),
        ({"amount_sat": 9_007_199_254_740, "max_fee_sat": 9_007_199_254_740}, 422, "invalid_request"),
        ({"speed": "now"}, 422, "invalid_request"),
        ({"if_mixed": "mix"}, 422, "invalid_request"),
        ({"fee_from": "bank"}, 422, "invalid_request"),
        ({"memo": "a\0b"}, 422, "invalid_request"),
        ({"memo": "é" * 320}, 422, "invalid_request"),
        ({"address": ""}, 422, "invalid_request"),
        ({"wallet_id": "wal_of_another"}, 404, "not_found"),
        ({"unknown": 1}, 422, "invalid_request"),
    ],
)
async def test_a_bad_request_starts_nothing_and_leaves_its_key_unused(
    window: Window, alice: User, body: dict[str, Any], status: int, code: str
) -> None:
    is_problem(await window.ask(alice, key="k", **body), status, code)
    assert window.temporal.started == []
    assert (await window.ask(alice, key="k")).status_code == 202


async def test_every_form_of_address_is_paid(window: Window, alice: User) -> None:
    uri = f"BITCOIN:{outside(1).upper()}?amount=0.001&label=x"
    for address in (
        *(outside(), outside().upper(), f"bitcoin:{outside()}", f"bitcoin:{outside()}?amount=0.001", uri),
        *("mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", "2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc"),
        *(address_of(3, taproot=True), LATER),
    ):
        answer = await window.ask(alice, address=address)
        assert answer.status_code == 202, answer.text
    found = (await alice.get("/v1/withdrawals")).json()["items"]
    assert {each["address"] for each in found} >= {outside(), outside(1), "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn"}
    assert {each["amount_sat"] for each in found} == {100_000}


async def test_all_of_a_wallet_leaves_nothing(window: Window, alice: User) -> None:
    await window.bank.payers.fund(alice, 777)
    made = await window.asked(alice, amount_sat=None, send_all=True)
    assert (made["amount_sat"], made["fee_from"], made["send_all"]) == (1_000_000, "amount", True)
    assert await alice.balance() == (10**9 + 777, 10**9 + 777)
    await window.sent(made)
    assert await alice.balance() == (0, 0)
    told = await window.show(alice, made["id"])
    assert told["paid_sat"] + told["fee_sat"] == 1_000_000


async def test_a_user_of_ours_is_paid_at_once(window: Window, alice: User) -> None:
    await set_rules(window.bank.payers, "fees", {"internal": [{"flat_msat": 1_500}]})
    bob = await window.bank.user(0)
    made = await window.asked(alice, address=await give_address(window, bob))
    assert made == made | {
        "kind": "internal",
        "status": "confirmed",
        "paid_sat": 100_000,
        "miner_fee_sat": 0,
        "txid": None,
        "batch_id": None,
        "waits_for": None,
    }
    assert await bob.balance() == (100_000 * SAT, 0)
    assert await alice.balance() == (10**9 - 100_000 * SAT - 1_500, 0)
    own = await give_address(window, alice, 8)
    is_problem(await window.ask(alice, address=own), 422, "self_payment")
    is_problem(await window.cancel(alice, made["id"]), 409, "withdrawal_ended")


async def test_a_caller_who_waits_for_the_end_gets_it(window: Window, alice: User) -> None:
    began = asyncio.get_running_loop().time()
    made = await window.asked(alice)
    assert asyncio.get_running_loop().time() - began < 5

    async def end() -> None:
        await asyncio.sleep(0.3)
        await window.bank.cancel(WithdrawalId(made["id"]))

    ending = asyncio.create_task(end())
    key = window.temporal.requests[window.temporal.started[0][0]].idempotency_key
    answer = await window.ask(alice, key=key, prefer="wait=30")
    await ending
    assert answer.json()["status"] == "cancelled"


async def test_a_cancellation_gives_everything_back_once(window: Window, alice: User) -> None:
    made = await window.asked(alice)
    first, again = await window.cancel(alice, made["id"]), await window.cancel(alice, made["id"])
    assert (first.status_code, again.json()) == (200, first.json())
    told = first.json()
    assert (told["status"], told["fee_sat"], told["miner_fee_sat"], told["held_sat"]) == ("cancelled", 0, 0, 0)
    assert await alice.balance() == (10**9, 0)
    sealed = await window.asked(alice)
    await window.bank.seal([WithdrawalId(sealed["id"])])
    is_problem(await window.cancel(alice, sealed["id"]), 409, "already_batched")
    assert (await window.show(alice, sealed["id"]))["waits_for"] == "its transaction to be signed and sent"


async def test_a_lost_workflow_keeps_a_cancellation_waiting(window: Window, alice: User) -> None:
    made = await window.asked(alice)
    window.temporal.gone.add(made["workflow_id"])
    is_problem(await window.cancel(alice, made["id"]), 503, "temporarily_unavailable")
    window.temporal.is_away = True
    is_problem(await window.cancel(alice, made["id"]), 503, "temporarily_unavailable")
    is_problem(await window.ask(alice), 503, "temporarily_unavailable")
    window.temporal.is_away, window.temporal.gone = False, set()
    assert (await window.cancel(alice, made["id"])).status_code == 200


async def test_without_a_worker_the_same_key_finds_what_became_of_it(
    window: Window, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.service.withdrawal.withdraw._OPENING_S", 1)
    window.temporal.has_workers = False
    is_problem(await window.ask(alice, key="k"), 503, "temporarily_unavailable")
    window.temporal.has_workers = True
    answer = await window.ask(alice, key="k")
    assert answer.status_code == 202
    assert answer.headers["idempotency-replayed"] == "true"
    assert len((await alice.get("/v1/withdrawals")).json()["items"]) == 1


async def test_before_a_wallet_is_adopted_nothing_is_asked(window: Window, alice: User) -> None:
    await window.bank.payers.api.database.execute("DELETE FROM bank.chains")
    is_problem(await window.ask(alice), 503, "temporarily_unavailable")
    assert window.temporal.started == []


async def test_withdrawals_are_their_owners_alone(window: Window, alice: User) -> None:
    made, other = await window.asked(alice), await window.bank.user(0)
    is_problem(await other.get(f"/v1/withdrawals/{made['id']}"), 404, "not_found")
    is_problem(await window.cancel(other, made["id"]), 404, "not_found")
    is_problem(await other.get("/v1/withdrawals/wd_nobody"), 404, "not_found")
    assert (await other.get("/v1/withdrawals")).json()["items"] == []
    api = window.bank.payers.api
    reader = bearer(await api.make_key(alice.id, ("read",)))
    sent = {"wallet_id": alice.wallet_id, "address": outside(), "amount_sat": 5_000}
    is_problem(await api.http.post("/v1/withdrawals", json=sent, headers=reader), 403, "forbidden")
    is_problem(await api.http.delete(f"/v1/withdrawals/{made['id']}", headers=reader), 403, "forbidden")
    assert (await api.http.get("/v1/withdrawals", headers=reader)).json()["items"] == [made]
    is_problem(await alice.post("/v1/withdrawals", sent), 400, "idempotency_key_required")
    is_problem(await api.http.post("/v1/withdrawals", json=sent), 401, "unauthenticated")
    is_problem(await api.http.get("/v1/withdrawals", headers=ADMIN), 403, "forbidden")


async def test_a_list_keeps_to_its_conditions(window: Window, alice: User) -> None:
    slow = await window.asked(alice, speed="slow", external_id="a")
    gone = await window.asked(alice, external_id="b")
    await window.cancel(alice, gone["id"])
    sent = await window.asked(alice)
    await window.sent(sent)
    batch_id = (await window.show(alice, sent["id"]))["batch_id"]

    async def found(**query: str) -> list[str]:
        answer = await alice.get("/v1/withdrawals", **query)
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()["items"]]

    assert await found() == [sent["id"], gone["id"], slow["id"]]
    assert await found(status="cancelled") == [gone["id"]]
    assert await found(speed="slow", wallet_id=alice.wallet_id) == [slow["id"]]
    assert await found(external_id="a") == [slow["id"]]
    assert await found(batch_id=batch_id) == [sent["id"]]
    assert await found(wallet_id="wal_of_another") == []
    for query in ({"status": "x"}, {"speed": "x"}, {"unknown": "1"}, {"limit": "0"}):
        is_problem(await alice.get("/v1/withdrawals", **query), 422, "invalid_request")
    first = (await alice.get("/v1/withdrawals", limit=1)).json()["next_cursor"]
    assert await found(after=first, limit="1") == [gone["id"]]
    is_problem(await alice.get("/v1/withdrawals", after=first, status="queued"), 422, "invalid_request")
