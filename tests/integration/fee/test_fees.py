"""Fees on the real stack: an operator sets them, users pay and are paid, and every view of the books says the same.

Alice is paid from outside, pays Bob and pays a shop over Lightning. Then the schedule changes: between a quote and its
payment, and under two payers at once, over two APIs and two workers. Each test leaves a bank without fees behind.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from engine.domain.fee import fee, parse_schedule
from engine.domain.money import Msat
from infra.local.outside import Outside
from tests.fixtures.stack import Account, Bank, Json

pytestmark = pytest.mark.integration

SetFees = Callable[[Json], Awaitable[int]]
SCHEDULE: Json = {
    "internal": [{"flat_msat": 10}, {"proportional_ppm": 100}],
    "lightning_out": [{"flat_msat": 1_000}, {"proportional_ppm": 500}],
    "lightning_in": [{"proportional_ppm": 1_000}, {"maximum_msat": 20_000}],
}


@pytest_asyncio.fixture
async def set_fees(bank: Bank) -> AsyncIterator[SetFees]:
    """Puts a schedule in force and gives its version; afterwards nothing costs anything again, also for others."""

    async def put(content: Json) -> int:
        current = (await bank.http.get("/v1/admin/fees", headers=bank.admin)).json()["version"]
        body = {"content": content, "note": "test", "version": current + 1}
        answer = await bank.http.put("/v1/admin/fees", json=body, headers=bank.admin)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["version"])

    try:
        yield put
    finally:
        await put({})


async def sums(bank: Bank) -> dict[str, int]:
    told = (await bank.http.get("/v1/admin/ledger/trial-balance", headers=bank.admin)).json()
    assert [total["settled_msat"] for total in told["totals"]] == [0]
    return {each["code"]: each["settled_msat"] for each in told["accounts"]}


async def test_fees_are_in_every_view_of_the_books(bank: Bank, shop: Outside, set_fees: SetFees) -> None:
    alice, bob = await bank.open_account(), await bank.open_account()
    version = await set_fees(SCHEDULE)
    before = await sums(bank)
    await bank.fund(alice, 50_000_000)  # 50,000 and so the maximum
    assert (await alice.wallet())["available_msat"] == 50_000_000 - 20_000
    inside = (await alice.pay(f"wallet:{bob.wallet_id}", amount_msat=1_000_001)).json()
    assert (inside["status"], inside["fee_msat"], inside["max_fee_msat"]) == ("settled", 111, 111)
    answer = await alice.pay(await shop.invoice(20_000_000), max_fee_msat=100_000)
    outside = answer.json()
    assert (answer.status_code, outside["status"], outside["max_fee_msat"]) == (201, "settled", 100_000), answer.text
    routing_msat = outside["fee_msat"] - 11_000
    assert 0 < routing_msat <= 89_000
    left_msat = 49_980_000 - 1_000_112 - 20_000_000 - outside["fee_msat"]
    assert (await alice.wallet())["balance_msat"] == (await alice.wallet())["available_msat"] == left_msat
    assert (await bob.wallet())["available_msat"] == 1_000_001
    told = (await alice.get(f"/v1/wallets/{alice.wallet_id}/statement")).json()
    assert [each["fee_msat"] for each in told["movements"]] == [20_000, 111, outside["fee_msat"]]
    assert sum(each["amount_msat"] for each in told["movements"]) == told["closing_msat"] == left_msat
    after = await sums(bank)
    earned = {code: before[code] - after[code] for code in ("income:ln-fee", "income:transfer-fee", "exp:ln-routing")}
    assert earned == {
        "income:ln-fee": 20_000 + 11_000 + routing_msat,
        "income:transfer-fee": 111,
        "exp:ln-routing": -routing_msat,
    }
    ref = f"ln:{outside['payment_hash']}:settle"
    story = (await bank.http.get(f"/v1/admin/ledger/transfers/{ref}", headers=bank.admin)).json()
    rule = {"fee_msat": 11_000, "fee_version": version, "fee_level": 0}
    assert [step["metadata"] for step in story["steps"]] == [rule, rule]


async def test_the_quoted_fee_is_the_most_that_it_costs_whatever_changes_meanwhile(
    bank: Bank, shop: Outside, set_fees: SetFees
) -> None:
    alice, bob = await bank.open_account(funds_msat=50_000_000), await bank.open_account()
    await set_fees(SCHEDULE)
    invoice = await shop.invoice(10_000_000)
    within, beyond = await alice.quote(f"wallet:{bob.wallet_id}", amount_msat=10_000), await alice.quote(invoice)
    assert (within["fee_msat"], within["fee_source"]) == (11, "exact")
    assert (beyond["max_fee_msat"], beyond["fee_source"]) == (100_000 + 6_000, "probe")
    paid = (await alice.pay(invoice, max_fee_msat=beyond["max_fee_msat"])).json()
    assert (paid["status"], paid["max_fee_msat"]) == ("settled", 106_000)
    await set_fees({"internal": [{"flat_msat": 12}]})
    pay = {"amount_msat": 10_000, "max_fee_msat": within["max_fee_msat"]}
    refused = await alice.pay(f"wallet:{bob.wallet_id}", key="dear", **pay)
    assert (refused.status_code, refused.json()["code"]) == (409, "fee_limit_exceeded"), refused.text
    assert (refused.json()["fee_msat"], refused.json()["max_fee_msat"]) == (12, 11)
    await set_fees({"internal": [{"flat_msat": 3}]})
    repeat = await alice.pay(f"wallet:{bob.wallet_id}", key="dear", **pay)
    assert (repeat.status_code, repeat.json()["code"]) == (409, "fee_limit_exceeded")
    assert (await alice.pay(f"wallet:{bob.wallet_id}", **pay)).json()["fee_msat"] == 3
    assert (await alice.wallet())["available_msat"] == 50_000_000 - 10_000_000 - paid["fee_msat"] - 10_003


async def test_each_payment_has_the_fee_of_one_version_while_the_schedule_changes(
    bank: Bank, shop: Outside, set_fees: SetFees
) -> None:
    payers = [await bank.open_account(funds_msat=20_000_000) for _ in range(2)]
    till = await bank.open_account(username=f"till_{secrets.token_hex(4)}")
    invoices = [await shop.invoice(1_000_000 + number) for number in range(8)]
    contents: dict[int, Json] = {}
    done = asyncio.Event()

    async def change() -> None:
        for rate in range(1, 10_000):
            content = {kind: [{"proportional_ppm": 100 * rate}] for kind in ("internal", "lightning_out")}
            contents[await set_fees(content)] = content
            if done.is_set():
                return

    async def pay(payer: Account, turn: int) -> list[Json]:
        answers = []
        for invoice in invoices[turn::2]:
            answers += [await payer.pay(invoice), await payer.pay(f"@{till.username}", amount_msat=333_333)]
        return [answer.json() for answer in answers]

    await set_fees({})
    changing = asyncio.create_task(change())
    try:
        paid = await asyncio.gather(*(pay(payer, turn) for turn, payer in enumerate(payers)))
    finally:
        done.set()
        await changing
    assert {each["status"] for one in paid for each in one} == {"settled"}
    rows = await bank.database.fetch(
        """SELECT p.kind, p.amount_msat, p.service_fee_msat, p.fee_version, p.fee_level FROM bank.payments p
            WHERE p.wallet_id = ANY($1)""",
        [payer.wallet_id for payer in payers],
    )
    assert len(rows) == 16
    assert len({row["fee_version"] for row in rows}) > 2
    for row in rows:
        content = contents.get(row["fee_version"], {})
        kind = "internal" if row["kind"] == "internal" else "lightning_out"
        again = fee(parse_schedule(content), kind, Msat(row["amount_msat"]), row["fee_level"])  # type: ignore[arg-type]
        assert again == row["service_fee_msat"]
    for payer, one in zip(payers, paid, strict=True):
        spent = sum(each["amount_msat"] + each["fee_msat"] for each in one)
        assert (await payer.wallet())["available_msat"] == 20_000_000 - spent
