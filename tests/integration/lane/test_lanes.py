"""Natural batching on the real stack: whoever shares a lane gets the answer that it would have got alone.

Who goes together is made certain by keeping both lanes of one API busy; see `tests/helpers/lane.py`.
"""

import asyncio
import secrets
from collections import Counter
from typing import Any

import httpx
import pytest

from api.app import create_app
from engine.settings import ApiSettings, load_settings
from infra.local import environment
from infra.local.outside import Outside
from tests.fixtures.stack import Account, Bank
from tests.helpers.lane import codes, lane_busy, locked_wallet, rode, send

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

LEVEL = 8
"""Of the payer here that has a limit."""


async def check_views(bank: Bank, payer: Account, paid: dict[str, Any]) -> None:
    """Whoever looks for this payment finds it as it was answered."""
    assert await payer.payment(paid["id"]) == paid
    assert paid in (await payer.get("/v1/payments", limit=100)).json()["items"]
    moved = (await payer.get(f"/v1/wallets/{payer.wallet_id}/transactions", limit=100)).json()["items"]
    assert paid["id"] in {item["reference"] for item in moved}
    ref = f"ln:{paid['payment_hash']}:recv" if paid["payment_hash"] else f"pay:{paid['id']}"
    told = (await bank.http.get(f"/v1/admin/ledger/transfers/{ref}", headers=bank.admin)).json()
    assert told["payment_ids"] == [paid["id"]]
    assert [step["workflow_id"] for step in told["steps"]] == [paid["workflow_id"]]
    statement = await payer.get(f"/v1/wallets/{payer.wallet_id}/statement", limit=100)
    assert ref in statement.text


async def test_64_clients_pay_at_once_and_every_answer_is_right(bank: Bank) -> None:
    """By name, by wallet and by invoice, through both APIs."""
    name = f"bob_{secrets.token_hex(4)}"
    bob = await bank.open_account(username=name)
    payers = [await bank.open_account(funds_msat=10_000_000) for _ in range(2)]
    invoices = await asyncio.gather(*(bob.invoice(1_000 + number) for number in range(20)))
    asked: list[tuple[str, int]] = [(invoice["bolt11"], invoice["amount_msat"]) for invoice in invoices]
    asked += [(f"@{name}", 2_000 + number) for number in range(22)]
    asked += [(f"wallet:{bob.wallet_id}", 3_000 + number) for number in range(22)]
    answers = await asyncio.gather(
        *(
            send(bank.next_api(), payers[number % 2], destination, amount_msat=amount_msat)
            for number, (destination, amount_msat) in enumerate(asked)
        )
    )
    assert codes(answers) == ["settled"] * 64
    assert {answer.status_code for answer in answers} == {201}
    assert [answer.json()["amount_msat"] for answer in answers] == [amount_msat for _, amount_msat in asked]
    shared = Counter(answer.json()["workflow_id"] for answer in answers if rode(answer))
    assert sum(shared.values()) > 32
    assert min(shared.values()) > 1
    assert len({answer.json()["id"] for answer in answers}) == 64
    for number in (0, 19, 20, 41, 42, 63):
        await check_views(bank, payers[number % 2], answers[number].json())
    assert (await bob.wallet())["available_msat"] == sum(amount_msat for _, amount_msat in asked)
    spent = [sum(amount_msat for _, amount_msat in asked[number::2]) for number in range(2)]
    assert [(await payer.wallet())["available_msat"] for payer in payers] == [10_000_000 - each for each in spent]


async def test_a_lone_payment_has_a_workflow_of_its_own(bank: Bank) -> None:
    alice, bob = await bank.open_account(funds_msat=5_000_000), await bank.open_account()
    for number in range(3):
        paid = await send(bank.apis[0], alice, f"wallet:{bob.wallet_id}", amount_msat=1_000 + number)
        assert paid.json()["status"] == "settled", paid.text
        assert not rode(paid)
        await check_views(bank, alice, paid.json())


async def test_one_key_at_both_apis_at_once_is_one_payment(bank: Bank) -> None:
    alice, bob = await bank.open_account(funds_msat=5_000_000), await bank.open_account()
    to = f"wallet:{bob.wallet_id}"
    async with lane_busy(bank, *bank.apis):
        answers = await asyncio.gather(
            *(send(api, alice, to, key=key, amount_msat=1_000) for key in ("k1", "k2", "k3") for api in bank.apis)
        )
    assert codes(answers) == ["settled"] * 6
    assert all(rode(answer) for answer in answers)
    assert [first.json() == second.json() for first, second in zip(answers[::2], answers[1::2], strict=True)] == [
        True
    ] * 3
    assert (await bob.wallet())["available_msat"] == 3_000
    again = await send(bank.apis[0], alice, to, key="k2", amount_msat=1_000)
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (answers[2].json(), "true")


async def test_one_key_for_two_requests_at_once_is_a_conflict_for_one_of_them(bank: Bank) -> None:
    alice, bob = await bank.open_account(funds_msat=5_000_000), await bank.open_account()
    to = f"wallet:{bob.wallet_id}"
    async with lane_busy(bank, *bank.apis):
        answers = await asyncio.gather(
            *(
                send(api, alice, to, key=key, amount_msat=amount_msat)
                for key in ("k1", "k2")
                for api, amount_msat in zip(bank.apis, (1_000, 2_000), strict=True)
            )
        )
    assert sorted(codes(answers[:2])) == sorted(codes(answers[2:])) == ["idempotency_conflict", "settled"]
    settled = sum(answer.json()["amount_msat"] for answer in answers if answer.status_code == 201)
    assert (await bob.wallet())["available_msat"] == settled


async def test_refused_payments_leave_the_good_ones_alone(bank: Bank) -> None:
    """One of each kind of no, in one crowd with payments that settle; each no stays the answer of its key."""
    alice, poor, capped, closing, lonely = [await bank.open_account() for _ in range(5)]
    name = f"bob_{secrets.token_hex(4)}"
    bob = await bank.open_account(username=name)
    await bank.fund(alice, 9_000_000)
    for account in (capped, lonely):
        moved = await alice.pay(f"wallet:{account.wallet_id}", amount_msat=3_000_000)
        assert moved.json()["status"] == "settled", moved.text
    current = (await bank.http.get("/v1/admin/limits", headers=bank.admin)).json()
    levels = {**current["content"]["levels"], str(LEVEL): {"internal": {"day_sat": 1_000}}}
    body = {"content": {"levels": levels}, "note": "test", "version": current["version"] + 1}
    assert (await bank.http.put("/v1/admin/limits", json=body, headers=bank.admin)).status_code == 200
    await bank.change(capped, level=LEVEL)
    await bank.change(lonely, status="locked", note="test")
    paid, cancelled, own = [await account.invoice(1_000) for account in (bob, bob, alice)]
    assert (await alice.pay(paid["bolt11"])).status_code == 201
    assert (await bob.post(f"/v1/invoices/{cancelled['id']}/cancel")).status_code == 200
    expired = await bob.invoice(1_000)
    await bank.database.execute("UPDATE bank.invoices SET status = 'expired' WHERE id = $1", expired["id"])
    key = {"name": "pocket", "scopes": ["send", "read"], "spend_limit_sat": {"day": 5}}
    made = await bank.http.post(f"/v1/accounts/{alice.id}/api-keys", json=key, headers=bank.admin)
    pocket = Account(bank, alice.id, alice.wallet_id, None, {"Authorization": f"Bearer {made.json()['key']}"})
    await bank.change(closing, status="closed", note="test")
    requests: list[tuple[Account, str, int, str]] = [
        (alice, f"@{name}", 1_000, "settled"),
        (poor, f"@{name}", 1_000, "insufficient_funds"),
        (capped, f"@{name}", 1_000_001, "limit_exceeded"),
        (pocket, f"@{name}", 5_001, "spend_limit_exceeded"),
        (alice, f"wallet:{bob.wallet_id}", 2_000, "settled"),
        (lonely, f"@{name}", 1_000, "account_locked"),
        (alice, f"wallet:{closing.wallet_id}", 1_000, "payee_closed"),
        (alice, paid["bolt11"], 1_000, "invoice_already_paid"),
        (alice, cancelled["bolt11"], 1_000, "invoice_cancelled"),
        (alice, expired["bolt11"], 1_000, "invoice_expired"),
        (alice, own["bolt11"], 1_000, "self_payment"),
        (capped, f"@{name}", 1_000_000, "settled"),
        (pocket, f"@{name}", 5_000, "settled"),
    ]
    async with lane_busy(bank, bank.apis[0]):
        answers = await asyncio.gather(
            *(
                send(bank.apis[0], payer, to, key=f"crowd-{number}", amount_msat=amount_msat)
                for number, (payer, to, amount_msat, _) in enumerate(requests)
            )
        )
    assert codes(answers) == [expected for *_, expected in requests]
    good = [answer for answer in answers if answer.status_code == 201]
    assert all(rode(answer) for answer in good)
    assert (await bob.wallet())["available_msat"] == 1_000 + 1_000 + 2_000 + 1_000_000 + 5_000
    for number, (payer, to, amount_msat, expected) in enumerate(requests):
        again = await send(bank.apis[1], payer, to, key=f"crowd-{number}", amount_msat=amount_msat)
        assert codes([again]) == [expected]


async def test_two_users_pay_one_invoice_in_one_lane(bank: Bank) -> None:
    alice, bob, shop = [await bank.open_account() for _ in range(3)]
    await bank.fund(alice, 5_000_000)
    assert (await alice.pay(f"wallet:{bob.wallet_id}", amount_msat=2_000_000)).status_code == 201
    invoice = await shop.invoice(1_000_000)
    async with lane_busy(bank, bank.apis[0]):
        *both, other = await asyncio.gather(
            send(bank.apis[0], alice, invoice["bolt11"]),
            send(bank.apis[0], bob, invoice["bolt11"]),
            send(bank.apis[0], alice, f"wallet:{shop.wallet_id}", amount_msat=1_000),
        )
    assert sorted(codes(both)) == ["invoice_already_paid", "settled"]
    winner = next(answer for answer in both if answer.status_code == 201)
    assert winner.json()["workflow_id"] == other.json()["workflow_id"]
    assert rode(winner)
    assert (await shop.wallet())["available_msat"] == 1_001_000


async def test_a_lane_that_no_worker_has_opened_is_there_and_waits(bank: Bank) -> None:
    alice, bob = await bank.open_account(funds_msat=5_000_000), await bank.open_account()
    to = f"wallet:{bob.wallet_id}"
    with bank.stack.held("worker-1"), bank.stack.held("worker-2"):
        async with lane_busy(bank, bank.apis[0]):
            asked = await asyncio.gather(
                *(send(bank.apis[0], alice, to, key=f"w{n}", wait_s=0, amount_msat=1_000, memo="x") for n in range(4))
            )
        assert [answer.status_code for answer in asked] == [202] * 4
        assert all(rode(answer) for answer in asked)
        for answer in asked:
            told = answer.json()
            assert (told["status"], told["kind"], told["memo"]) == ("pending", "internal", "x")
            looked = await alice.get(answer.headers["Location"])
            assert (looked.status_code, looked.json()) == (200, told)
            assert (await bob.get(answer.headers["Location"])).status_code == 404
        noted = await bank.database.fetchval(
            "SELECT count(*) FROM bank.boarded_payments WHERE workflow_id = $1", asked[0].json()["workflow_id"]
        )
        assert noted == 4
        again = await send(bank.apis[1], alice, to, key="w0", wait_s=0, amount_msat=1_000, memo="x")
        assert (again.status_code, again.json()) == (202, asked[0].json())
        assert again.headers["Idempotency-Replayed"] == "true"
        other = await send(bank.apis[1], alice, to, key="w1", wait_s=0, amount_msat=2_000, memo="x")
        assert (other.status_code, codes([other])) == (409, ["idempotency_conflict"])
    for answer in asked:
        assert (await alice.final(answer.json()["id"]))["status"] == "settled"
    assert (await bob.wallet())["available_msat"] == 4_000
    again = await send(bank.apis[1], alice, to, key="w0", amount_msat=1_000, memo="x")
    assert (again.status_code, again.json()["id"]) == (201, asked[0].json()["id"])


async def test_lightning_and_what_is_wrong_never_wait_for_a_lane(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=5_000_000)
    api = bank.apis[0]
    invoices = [await shop.invoice(100_000) for _ in range(3)]
    async with lane_busy(bank, api):
        answers = await asyncio.gather(*(send(api, alice, invoice, max_fee_msat=10_000) for invoice in invoices))
        wrong = await asyncio.gather(
            *(send(api, alice, destination, amount_msat=1) for destination in ("@nobody_at_all", "x", "lnbcrt1x"))
        )
    assert codes(answers) == ["settled"] * 3
    assert not any(rode(answer) for answer in answers)
    assert {answer.status_code for answer in wrong} <= {404, 422}


async def test_with_lanes_turned_off_each_goes_alone(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = await bank.open_account(funds_msat=5_000_000), await bank.open_account()
    for name, value in {**environment.of_api(bank.stack.home), "MILLRACE_PAYMENT_LANES": "0"}.items():
        monkeypatch.setenv(name, value)
    app = create_app(load_settings(ApiSettings))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api", timeout=75) as api,
    ):
        answers = await asyncio.gather(
            *(send(api, alice, f"wallet:{bob.wallet_id}", amount_msat=1_000) for _ in range(12))
        )
    assert codes(answers) == ["settled"] * 12
    assert not any(rode(answer) for answer in answers)
    assert len({answer.json()["workflow_id"] for answer in answers}) == 12


async def test_64_clients_overspend_one_wallet_and_as_many_succeed_as_the_balance_allows(bank: Bank) -> None:
    name = f"till_{secrets.token_hex(4)}"
    alice, till = await bank.open_account(funds_msat=20_500_000), await bank.open_account(username=name)
    async with locked_wallet(bank, alice):  # until all are there
        asked = [
            asyncio.create_task(send(bank.next_api(), alice, f"@{name}", amount_msat=1_000_000)) for _ in range(64)
        ]
        await asyncio.wait(asked, timeout=2)
    answers = [await each for each in asked]
    assert Counter(codes(answers)) == {"settled": 20, "insufficient_funds": 44}
    assert sum(rode(answer) for answer in answers if answer.status_code == 201) > 10
    assert (await alice.wallet())["available_msat"] == 500_000
    assert (await till.wallet())["available_msat"] == 20_000_000
