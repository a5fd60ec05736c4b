"""What hostile and careless callers send to the doors of withdrawals: clear codes, and nothing is held."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engine.domain import bech32
from engine.domain.ids import AccountId, WalletId
from tests.fixtures.postgres import Database
from tests.helpers.address.pool import address_of, fill_pool
from tests.helpers.api import ADMIN, Json, User, bearer, is_problem
from tests.helpers.limit import set_limits, used
from tests.helpers.withdrawal.teller import CAP_SAT, SAT, outside
from tests.helpers.withdrawal.window import Window, open_window

pytestmark = pytest.mark.integration

BALANCE = 10**9
MOST_SAT = 9_007_199_254_740
"""The most that the door reads as an amount."""
HASH = bytes(range(20))
FIELD = (2**256 - 2**32 - 977).to_bytes(32, "big")


def segwit(version: int, program: bytes, *, prefix: str = "bcrt", modified: bool) -> str:
    return bech32.write(prefix, [version, *bech32.to_words(program)], modified=modified)


NO_ADDRESSES = {
    "version 0 with the checksum of later ones": segwit(0, HASH, modified=True),
    "a later version with the checksum of version 0": segwit(1, HASH, modified=False),
    "version 0 with 21 bytes": segwit(0, bytes(21), modified=False),
    "version 0 with 31 bytes": segwit(0, bytes(31), modified=False),
    "version 17": segwit(17, HASH, modified=True),
    "version 31": segwit(31, HASH, modified=True),
    "a program of one byte": segwit(2, b"x", modified=True),
    "a program of 41 bytes": segwit(2, bytes(41), modified=True),
    "a taproot key above the field": segwit(1, b"\xff" * 32, modified=True),
    "a taproot key that is the field": segwit(1, FIELD, modified=True),
    "base58 with another checksum": "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfm",
    "base58 with a character that is none": "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRf0",
    "an extended key": "xpub661MyMwAqRbcFtXgS5sYJABqqG9YLmC4Q1Rdap9gSE8NqtwybGhePY2gZ29ESFjqJoCu1Rupje8",
    "another chain": segwit(0, HASH, prefix="ltc", modified=False),
    "a prefix alone": "bcrt1",
    "a space before": f" {outside()}",
    "a line end after": f"{outside()}\n",
    "letters that look alike": outside().replace("q", "\u051b", 1),
    "digits that look alike": outside().replace("1", "\uff11", 1),
    "an invoice": "lnbcrt1p0",
    "two schemes": f"bitcoin:bitcoin:{outside()}",
    "slashes": f"bitcoin://{outside()}",
    "two amounts": f"bitcoin:{outside()}?amount=0.001&amount=0.001",
    "nine decimals": f"bitcoin:{outside()}?amount=0.000000001",
    "a negative amount": f"bitcoin:{outside()}?amount=-0.001",
    "no amount": f"bitcoin:{outside()}?amount=",
    "an amount with an exponent": f"bitcoin:{outside()}?amount=1e-3",
    "an amount of nothing": f"bitcoin:{outside()}?amount=0",
    "an amount beyond all bounds": f"bitcoin:{outside()}?amount=99999999",
    "a parameter that is required": f"bitcoin:{outside()}?REQ-pay=1",
}
OTHER_NETWORKS = {
    "mainnet's base58": "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
    "mainnet's script hash": "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy",
    "testnet's": segwit(0, HASH, prefix="tb", modified=False),
    "mainnet's taproot": segwit(1, bytes.fromhex(f"{1:064x}"), prefix="bc", modified=True),
    "mainnet's in a URI": f"bitcoin:{segwit(0, HASH, prefix='bc', modified=False)}",
}
ODD: dict[str, list[Any]] = {
    "amount_sat": [1e5, 1e400, "NaN", [100_000], {}, True, -(2**63), 2**64],
    "send_all": [1, "true", "yes", 0, []],
    "fee_from": ["Amount", "", 0, True, ["amount"], "amount\0"],
    "max_fee_sat": [True, "900", 1e3, -1, 2**63, MOST_SAT + 1],
    "speed": ["FAST", 0, "", ["fast"], "fast\0"],
    "alone": [1, "false", []],
    "unlinked": [0, "no", {}],
    "memo": [5, [], "\0", "m" * 100_000, "\ud800"],
    "external_id": [5, "\0", "e" * 1_000, ""],
    "wallet_id": [5, "\0", "w" * 1_000, "", []],
}
"""Values that a field does not take."""
REFUSALS = {(422, "invalid_request"), (400, "invalid_request"), (404, "not_found"), (413, "request_too_large")}


@pytest_asyncio.fixture
async def window(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Window]:
    async with open_window(ledger_db, tmp_path) as window:
        yield window


@pytest_asyncio.fixture
async def alice(window: Window) -> User:
    return await window.bank.user(BALANCE)


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


async def change(window: Window, user: User, **body: str) -> None:
    path = f"/v1/admin/accounts/{user.id}"
    answer = await window.bank.payers.api.http.patch(path, json={"note": "test", **body}, headers=ADMIN)
    assert answer.status_code == 200, answer.text


async def untouched(window: Window, user: User) -> bool:
    """Nothing is held, and no workflow was begun."""
    return (await user.balance(), window.temporal.started) == ((BALANCE, 0), [])


async def test_an_address_that_is_none_of_this_network_holds_nothing(window: Window, alice: User) -> None:
    for code, addresses in (("invalid_destination", NO_ADDRESSES), ("wrong_network", OTHER_NETWORKS)):
        for name, address in addresses.items():
            for path in ("/v1/withdrawals", "/v1/withdrawals/quote"):
                sent = {"wallet_id": alice.wallet_id, "address": address, "amount_sat": 100_000}
                answer = await alice.post(path, sent, key="k")
                assert answer.status_code == 422, (name, answer.text)
                assert answer.json()["code"] in {code, "invalid_request"}, (name, answer.text)
    assert await untouched(window, alice)
    assert (await window.ask(alice, key="k")).status_code == 202


async def test_a_body_of_other_types_holds_nothing(window: Window, alice: User) -> None:
    for name, value in ((name, value) for name, values in ODD.items() for value in values):
        body = {"wallet_id": alice.wallet_id, "address": outside(), "amount_sat": 100_000, name: value}
        answer = await post_raw(alice, body)
        assert answer in REFUSALS, (name, value, answer)
    assert await untouched(window, alice)
    assert (await window.ask(alice, key="k")).status_code == 202


async def post_raw(user: User, body: Json) -> tuple[int, str]:
    """As Python writes JSON, which has `Infinity` and lone surrogates."""
    headers = {**user.headers, "Idempotency-Key": "k", "Content-Type": "application/json"}
    answer = await user.http.post("/v1/withdrawals", content=json.dumps(body), headers=headers)
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize("amount_sat", [BALANCE // SAT, MOST_SAT - CAP_SAT, MOST_SAT])
async def test_more_than_there_is_is_refused_in_words(window: Window, alice: User, amount_sat: int) -> None:
    answer = await window.ask(alice, amount_sat=amount_sat)
    assert answer.status_code in {409, 422}, answer.text
    assert answer.json()["code"] in {"insufficient_funds", "invalid_request"}
    is_problem(await window.ask(alice, amount_sat=amount_sat + 1, fee_from="amount"), *above(amount_sat + 1))
    is_problem(await window.ask(alice, amount_sat=21_000_000 * 10**8 + 1), 422, "invalid_request")
    assert (await window.quote(alice, amount_sat=amount_sat))["warning"]["code"] == "insufficient_funds"
    assert (await alice.balance())[1] == 0


def above(amount_sat: int) -> tuple[int, str]:
    return (422, "invalid_request") if amount_sat > MOST_SAT else (409, "insufficient_funds")


async def test_ids_that_cannot_be_ids_are_not_found(window: Window, alice: User) -> None:
    for odd in ("%00", "wd_%00x", "x" * 5_000, "%F0%28%8C%BC", "..%2F..%2Fadmin", "wd_'--", "\u202e"):
        for method in ("GET", "DELETE"):
            answer = await alice.http.request(method, f"/v1/withdrawals/{odd}", headers=alice.headers)
            assert answer.status_code in {404, 405}, (odd, answer.text)
    for query in (
        {"batch_id": "\0"},
        {"external_id": "\0"},
        {"wallet_id": "x" * 1_000},
        {"after": "x"},
        {"limit": "-1"},
    ):
        is_problem(await alice.get("/v1/withdrawals", **query), 422, "invalid_request")


@pytest.mark.parametrize("bound", ["balance", "limit"])
async def test_many_at_once_do_not_pass_a_bound_together(window: Window, bound: str) -> None:
    alice = await window.bank.user(250_000 * SAT if bound == "balance" else BALANCE)
    if bound == "limit":
        await set_limits(window.bank.payers, {"0": {"withdrawal": {"day_sat": 250_000}}})
    answers = await asyncio.gather(*(window.ask(alice, max_fee_sat=5_000) for _ in range(6)))
    taken = [answer for answer in answers if answer.status_code == 202]
    assert len(taken) == 2
    code = "insufficient_funds" if bound == "balance" else "limit_exceeded"
    assert {answer.json()["code"] for answer in answers if answer.status_code != 202} == {code}
    assert (await alice.balance())[1] == 210_000 * SAT
    if bound == "limit":
        assert await used(alice, "withdrawal") == 210_000 * SAT
        await window.cancel(alice, taken[0].json()["id"])
        assert await used(alice, "withdrawal") == 105_000 * SAT
        assert (await window.ask(alice, max_fee_sat=5_000)).status_code == 202


async def test_all_of_a_wallet_is_taken_once_by_many_at_once(window: Window, alice: User) -> None:
    asked = (window.ask(alice, amount_sat=None, send_all=True, key=f"all-{n}") for n in range(4))
    answers = await asyncio.gather(*asked)
    assert sum(answer.status_code == 202 for answer in answers) == 1
    assert {answer.json()["code"] for answer in answers if answer.status_code != 202} <= {
        *("dust_amount", "amount_too_small", "insufficient_funds")
    }
    assert await alice.balance() == (BALANCE, BALANCE)


async def test_a_locked_account_withdraws_nothing_and_its_queue_waits(window: Window, alice: User) -> None:
    carol, made = await window.operator(), await window.asked(alice)
    await change(window, alice, status="locked")
    is_problem(await window.ask(alice), 409, "account_locked")
    quoted = {"wallet_id": alice.wallet_id, "address": outside(), "amount_sat": 100_000}
    is_problem(await alice.post("/v1/withdrawals/quote", quoted), 409, "account_locked")
    assert (await window.show(alice, made["id"]))["waits_for"] == "its account, which is locked"
    (told,) = (await carol.get("/v1/admin/withdrawals")).json()["items"]
    assert told["waits_for"] == "its account, which is locked"
    queues = {each["speed"]: each for each in (await carol.get("/v1/admin/batchers")).json()["items"]}
    assert queues["standard"]["waiting"] == 0
    await change(window, alice, status="active")
    assert (await window.show(alice, made["id"]))["waits_for"] == "its turn in the next batch"
    await change(window, alice, status="locked")
    assert (await window.cancel(alice, made["id"])).json()["status"] == "cancelled"
    assert await alice.balance() == (BALANCE, 0)


async def test_a_payee_of_ours_who_is_locked_receives_and_one_who_is_closed_does_not(
    window: Window, alice: User
) -> None:
    locked, closed = await window.bank.user(0), await window.bank.user(0)
    to_locked, to_closed = await give_address(window, locked, 7), await give_address(window, closed, 8)
    await change(window, locked, status="locked")
    await change(window, closed, status="closed")
    assert (await window.asked(alice, address=to_locked))["status"] == "confirmed"
    is_problem(await window.ask(alice, address=to_closed), 409, "payee_closed")
    assert await alice.balance() == (BALANCE - 100_000 * SAT, 0)


async def test_a_key_that_is_revoked_neither_asks_nor_cancels(window: Window, alice: User) -> None:
    api, made = window.bank.payers.api, await window.asked(alice)
    answer = await api.http.post(
        f"/v1/accounts/{alice.id}/api-keys", json={"name": "lost", "scopes": ["read", "send"]}, headers=ADMIN
    )
    key = answer.json()
    lost = User(api.http, alice.id, alice.wallet_id, bearer(key["key"]))
    assert (await window.ask(lost, key="k")).status_code == 202
    await api.http.delete(f"/v1/accounts/{alice.id}/api-keys/{key['id']}", headers=ADMIN)
    is_problem(await window.ask(lost, key="k"), 401, "unauthenticated")
    is_problem(await window.cancel(lost, made["id"]), 401, "unauthenticated")


async def test_a_cancellation_and_a_seal_at_once_agree_over_http(window: Window, alice: User) -> None:
    for _ in range(5):
        made = await window.asked(alice, amount_sat=10_000)

        async def seal(made: Json = made) -> bool:
            try:
                await window.bank.seal([made["id"]])
            except KeyError:
                return False
            return True

        answers = await asyncio.gather(window.cancel(alice, made["id"]), seal(), window.cancel(alice, made["id"]))
        sealed = answers[1]
        codes = {answer.status_code for answer in (answers[0], answers[2])}
        assert codes == ({409} if sealed else {200})
        assert (await window.show(alice, made["id"]))["status"] == ("batched" if sealed else "cancelled")


async def test_one_person_with_two_keys_is_one_person(window: Window, alice: User) -> None:
    carol = await window.operator()
    await window.rules(carol, approval_above_sat=10_000, second_operator_above_sat=50_000)
    made = await window.asked(alice)
    path = f"/v1/admin/withdrawals/{made['id']}/decisions"
    proposed = (await carol.post(path, {"kind": "approve", "reason": "seen the papers"})).json()
    assert proposed["status"] == "proposed"
    scopes = ("finance", "treasury")
    other_key = bearer(await window.bank.payers.api.make_key(carol.id, scopes))
    again = User(carol.http, carol.id, carol.wallet_id, other_key)
    approve = f"/v1/admin/withdrawal-decisions/{proposed['id']}/approve"
    is_problem(await again.post(approve, {}), 403, "own_proposal")
    assert (await window.show(alice, made["id"]))["waits_for"] == "an operator's approval"


@pytest.mark.parametrize("amount_sat", [20_000, 100_000])
async def test_an_operator_lets_no_withdrawal_of_his_own_account_go(window: Window, amount_sat: int) -> None:
    carol, dave = await window.operator("finance", "read", "send"), await window.operator()
    await window.rules(dave, approval_above_sat=10_000, second_operator_above_sat=50_000)
    await window.bank.payers.fund(carol, BALANCE)
    other_key = bearer(await window.bank.payers.api.make_key(carol.id, ("finance",)))
    made = await window.asked(carol, amount_sat=amount_sat)
    path = f"/v1/admin/withdrawals/{made['id']}/decisions"
    approve, hold, resume = ({"kind": kind, "reason": "mine"} for kind in ("approve", "hold", "resume"))
    for operator in (carol, User(carol.http, carol.id, carol.wallet_id, other_key)):
        is_problem(await operator.post(path, approve), 403, "own_account")
    assert (await carol.post(path, hold)).json()["status"] == "done"
    is_problem(await carol.post(path, resume), 403, "own_account")
    if amount_sat > 50_000:
        proposed = (await dave.post(path, approve)).json()
        assert proposed["status"] == "proposed"
        decision = f"/v1/admin/withdrawal-decisions/{proposed['id']}"
        is_problem(await carol.post(f"{decision}/approve", {}), 403, "own_account")
        assert (await carol.post(f"{decision}/reject", {"reason": "mine"})).json()["status"] == "rejected"
    else:
        assert (await dave.post(path, resume)).json()["status"] == "done"
        assert (await dave.post(path, approve)).json()["status"] == "done"
    assert (await window.show(carol, made["id"]))["status"] == "queued"


async def test_a_quote_counts_only_who_would_share_the_batch(window: Window, alice: User) -> None:
    alone = (await window.quote(alice))["speeds"]["standard"]
    coin: dict[str, Any] = {"amount_sat": 5_000, "unlinked": True, "if_mixed": "wait"}
    for _ in range(2):
        await window.asked(alice, amount_sat=5_000, alone=True)
        await window.asked(alice, **coin)
    told = (await window.quote(alice))["speeds"]["standard"]
    assert (told["waiting"], told["miner_fee_sat"]) == (0, alone["miner_fee_sat"])
    await window.asked(alice, amount_sat=5_000)
    told = (await window.quote(alice))["speeds"]["standard"]
    assert told["waiting"] == 1
    assert told["miner_fee_sat"] < alone["miner_fee_sat"]
    queues = (await (await window.operator()).get("/v1/admin/batchers")).json()["items"]
    assert {each["speed"]: each["waiting"] for each in queues} == {"fast": 0, "standard": 5, "slow": 0}
