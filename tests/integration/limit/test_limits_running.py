"""Limits and states of accounts in the running bank: many payments at once, failed ones, and a lock in mid-flight."""

import asyncio
import secrets
from collections import Counter

import pytest

from infra.local.outside import Outside
from tests.fixtures.stack import Account, Bank, eventually

pytestmark = pytest.mark.integration

LEVEL = 9
"""Of the payers here: all others, of level 0, keep the wide limits of the beginning."""


async def set_limits(bank: Bank, **kinds: dict[str, int]) -> None:
    current = (await bank.http.get("/v1/admin/limits", headers=bank.admin)).json()
    levels = {**current["content"]["levels"], str(LEVEL): kinds}
    body = {"content": {"levels": levels}, "note": "test", "version": current["version"] + 1}
    answer = await bank.http.put("/v1/admin/limits", json=body, headers=bank.admin)
    assert answer.status_code == 200, answer.text


async def payer_of(bank: Bank, funds_msat: int) -> Account:
    payer = await bank.open_account(funds_msat=funds_msat)
    await bank.change(payer, level=LEVEL)
    return payer


async def used_msat(payer: Account, kind: str) -> int:
    items = (await payer.get("/v1/limits")).json()["items"]
    return int(next(item["used_msat"] for item in items if (item["kind"], item["window"]) == (kind, "day")))


async def test_as_many_of_64_payments_settle_as_fit_the_limit(bank: Bank) -> None:
    await set_limits(bank, internal={"day_sat": 1_000})
    name = f"many_{secrets.token_hex(4)}"
    payer, payee = await payer_of(bank, 5_000_000), await bank.open_account(username=name)
    answers = await asyncio.gather(*(payer.pay(f"@{name}", amount_msat=30_000, wait_s=60) for _ in range(64)))
    codes = Counter(answer.json().get("code", answer.json()["status"]) for answer in answers)
    assert codes == {"settled": 33, "limit_exceeded": 31}
    assert (await payee.wallet())["available_msat"] == 33 * 30_000
    assert await used_msat(payer, "internal") == 990_000
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.json()["limit_msat"] == 1_000_000


async def test_failed_lightning_payments_give_back_what_they_counted(bank: Bank, shop: Outside) -> None:
    await set_limits(bank, lightning={"day_sat": 10_000})
    payer = await payer_of(bank, 50_000_000)
    for _ in range(2):  # the second would not fit beside the first
        failed = await payer.pay(await shop.invoice(8_000_000), max_fee_msat=0)
        assert failed.json()["failure"]["code"] == "fee_limit_exceeded", failed.text
        assert await used_msat(payer, "lightning") == 0
    settled = await payer.pay(await shop.invoice(8_000_000))
    assert settled.json()["status"] == "settled", settled.text
    left_msat = 8_000_000 + settled.json()["fee_msat"]
    assert await used_msat(payer, "lightning") == left_msat
    beyond = await payer.pay(await shop.invoice(2_000_000), max_fee_msat=20_000)
    assert (beyond.status_code, beyond.json()["code"]) == (409, "limit_exceeded"), beyond.text
    assert (beyond.json()["used_msat"], beyond.json()["asked_msat"]) == (left_msat, 2_020_000)


async def test_the_worst_cost_of_a_pending_payment_counts_until_it_has_ended(bank: Bank, shop: Outside) -> None:
    await set_limits(bank, lightning={"day_sat": 10_000})
    payer = await payer_of(bank, 50_000_000)
    invoice = await shop.hold_invoice(5_000_000)
    pending = (await payer.pay(invoice.bolt11, max_fee_msat=900_000, wait_s=0)).json()

    async def counted() -> int | None:
        return await used_msat(payer, "lightning") or None

    assert await eventually(counted, "the payment to be held") == 5_900_000
    beyond = await payer.pay(await shop.invoice(4_100_001), max_fee_msat=0)
    assert (beyond.status_code, beyond.json()["code"]) == (409, "limit_exceeded"), beyond.text
    await shop.accepted(invoice)
    await shop.settle(invoice)
    settled = await payer.final(pending["id"])
    assert (settled["status"], settled["fee_msat"] < 900_000) == ("settled", True)
    assert await used_msat(payer, "lightning") == 5_000_000 + settled["fee_msat"]


async def test_a_stolen_key_takes_no_more_than_its_cap(bank: Bank, shop: Outside) -> None:
    payer = await bank.open_account(funds_msat=20_000_000)
    body = {"name": "pocket", "scopes": ["send"], "spend_limit_sat": {"day": 5_000}}
    made = await bank.http.post(f"/v1/accounts/{payer.id}/api-keys", json=body, headers=bank.admin)
    thief = Account(bank, payer.id, payer.wallet_id, None, {"Authorization": f"Bearer {made.json()['key']}"})
    for amount_msat, max_fee_msat in ((4_995_001, 5_000), (4_500_000, 500_001)):
        refused = await thief.pay(await shop.invoice(amount_msat), max_fee_msat=max_fee_msat)
        assert (refused.status_code, refused.json()["code"]) == (409, "spend_limit_exceeded"), refused.text
        assert refused.json()["limit_msat"] == 5_000_000
    dear = await thief.pay(await shop.invoice(1_000_000), max_fee_msat=4_000_000)
    assert (dear.status_code, dear.json()["code"], dear.json()["highest_msat"]) == (422, "max_fee_too_high", 200_000)
    settled = (await thief.pay(await shop.invoice(4_000_000))).json()
    assert settled["status"] == "settled"
    left_msat = 5_000_000 - 4_000_000 - settled["fee_msat"]
    assert (await thief.pay(await shop.invoice(left_msat + 1), max_fee_msat=0)).json()["code"] == "spend_limit_exceeded"
    # Exactly what is left counts while it is tried, and fails at the network: nobody routes for nothing.
    assert (await thief.pay(await shop.invoice(left_msat), max_fee_msat=0)).json()["status"] == "failed"
    assert (await payer.wallet())["available_msat"] == 16_000_000 - settled["fee_msat"]


async def test_a_payment_in_flight_when_its_account_is_locked_ends_as_it_would_have(bank: Bank, shop: Outside) -> None:
    payer = await bank.open_account(funds_msat=20_000_000)
    invoice = await shop.hold_invoice(5_000_000)
    pending = await payer.pay(invoice.bolt11, wait_s=0)
    payment_id = pending.json()["id"]

    async def held() -> bool | None:
        return True if (await payer.wallet())["held_msat"] else None

    await eventually(held, "the money to be held")
    await bank.change(payer, status="locked", note="lost phone")
    refused = await payer.pay(await shop.invoice(1_000))
    assert (refused.status_code, refused.json()["code"]) == (409, "account_locked")
    await bank.fund(payer, 3_000_000)  # it still receives
    await shop.settle(invoice)
    settled = await payer.final(payment_id)
    assert settled["status"] == "settled"
    assert (await payer.wallet())["available_msat"] == 18_000_000 - settled["fee_msat"]


async def test_the_invoices_of_a_closed_account_are_closed_at_the_node(bank: Bank, shop: Outside) -> None:
    closing = await bank.open_account()
    invoice = await closing.invoice(1_000_000)
    await bank.change(closing, status="closed", note="as the owner asked")
    await bank.closed_at_node(invoice["payment_hash"])
    with pytest.raises(Exception, match="INCORRECT_PAYMENT_DETAILS"):
        await shop.pay(invoice["bolt11"])
