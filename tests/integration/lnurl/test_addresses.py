"""Money over addresses on the whole stack: to strangers' addresses, to ours, and out through withdraw links."""

import asyncio
import hashlib
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from engine.clients import bolt11
from infra.local.outside import Outside, outside
from tests.fixtures.stack import Account, Bank, Json, eventually
from tests.helpers.held_payment import accepted
from tests.helpers.lnurl_service import Service, lnurl_service

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def service(shop: Outside) -> AsyncIterator[Service]:
    async with lnurl_service(shop) as running:
        yield running


def fresh_name() -> str:
    return f"u_{secrets.token_hex(6)}"


def body(answer: Any, status: int) -> Json:
    assert answer.status_code == status, answer.text
    found: Json = answer.json()
    return found


def problem(answer: Any, status: int, code: str) -> Json:
    found = body(answer, status)
    assert found["code"] == code, found
    return found


async def public(bank: Bank, path: str, **query: Any) -> Json:
    """LNURL's answers are 200, whatever they say."""
    url = path if path.startswith("http") else str(bank.http.base_url) + path
    return body(await bank.next_api().get(url, params=query or None), 200)


@asynccontextmanager
async def without_workers(bank: Bank) -> AsyncIterator[None]:
    """Both stopped in good order for the length of the block."""
    names = ("worker-1", "worker-2")
    await asyncio.gather(*(asyncio.to_thread(bank.stack.hold, name) for name in names))
    try:
        yield
    finally:
        await asyncio.gather(*(asyncio.to_thread(bank.stack.release, name) for name in names))


# Paying others


async def test_a_lightning_address_elsewhere_is_paid_once_per_key(bank: Bank, service: Service) -> None:
    alice = await bank.open_account(funds_msat=2_000_000)
    address = f"Carol@{service.domain}"
    decoded = body(await alice.post("/v1/decode", {"destination": address}), 200)
    assert (decoded["kind"], decoded["own"], decoded["description"]) == ("lnurl", False, "Carol’s teahouse")
    assert (decoded["min_amount_msat"], decoded["max_amount_msat"]) == (1_000, 50_000_000)

    paid = body(await alice.pay(address, key="tea", amount_msat=700_000, memo="green tea"), 201)
    assert (paid["status"], paid["kind"], paid["destination"]) == ("settled", "lightning", address.lower())
    (bolt,) = service.invoices
    invoice = bolt11.decode(bolt, network="regtest")
    assert (paid["payment_hash"], paid["amount_msat"]) == (invoice.payment_hash, 700_000)
    assert hashlib.sha256(bytes.fromhex(paid["preimage"])).hexdigest() == invoice.payment_hash
    assert service.asked[-1] == "/honest/callback?token=7&amount=700000&comment=green+tea"

    asked = len(service.asked)
    again = await alice.pay(address, key="tea", amount_msat=700_000, memo="green tea")
    assert (body(again, 201)["id"], again.headers["Idempotency-Replayed"]) == (paid["id"], "true")
    problem(await alice.pay(address, key="tea", amount_msat=700_001, memo="green tea"), 409, "idempotency_conflict")
    assert len(service.asked) == asked


async def test_an_lnurl_is_paid_also_inside_a_uri_and_after_a_redirect(bank: Bank, service: Service) -> None:
    alice = await bank.open_account(funds_msat=2_000_000)
    for destination in (service.lnurl("honest").upper(), f"lightning:{service.lnurl('redirect')}"):
        assert body(await alice.pay(destination, amount_msat=100_000), 201)["status"] == "settled"
    fixed = body(await alice.pay(f"bitcoin:?lightning={service.lnurl('fixed')}"), 201)
    assert (fixed["status"], fixed["amount_msat"]) == ("settled", 1_000)


@pytest.mark.parametrize(
    ("way", "status", "code"),
    [
        ("wrong-amount", 422, "invalid_destination"),
        ("wrong-hash", 422, "invalid_destination"),
        ("no", 422, "invalid_destination"),
        ("file", 422, "invalid_destination"),
        ("circle", 503, "destination_unavailable"),
        ("html", 503, "destination_unavailable"),
        ("huge", 503, "destination_unavailable"),
        ("slow", 503, "destination_unavailable"),
        ("drip", 503, "destination_unavailable"),
        ("gzip", 503, "destination_unavailable"),
        ("headers", 503, "destination_unavailable"),
    ],
)
async def test_a_service_that_misbehaves_costs_nothing_and_leaves_the_key_unused(
    bank: Bank, service: Service, way: str, status: int, code: str
) -> None:
    alice = await bank.open_account(funds_msat=1_000_000)
    found = problem(await alice.pay(service.lnurl(way), key="once", amount_msat=100_000), status, code)
    if way == "no":
        assert "Closed for today." in found["detail"]
    wallet = await alice.wallet()
    assert (wallet["available_msat"], wallet["held_msat"]) == (1_000_000, 0)
    assert body(await alice.get("/v1/payments"), 200)["items"] == []
    assert body(await alice.pay(service.lnurl("honest"), key="once", amount_msat=100_000), 201)["status"] == "settled"


async def test_amounts_that_the_payee_does_not_take_are_told_with_the_bounds(bank: Bank, service: Service) -> None:
    alice = await bank.open_account(funds_msat=1_000_000)
    less = problem(await alice.pay(service.lnurl("honest"), amount_msat=999), 422, "amount_too_small")
    assert (less["min_msat"], less["max_msat"]) == (1_000, 50_000_000)
    problem(await alice.pay(service.lnurl("honest"), amount_msat=50_000_001), 422, "amount_mismatch")
    problem(await alice.pay(service.lnurl("honest")), 422, "amount_required")
    asked = {"wallet_id": alice.wallet_id, "destination": service.lnurl("honest")}
    problem(await alice.post("/v1/payments/quote", {**asked, "amount_msat": 999}), 422, "amount_too_small")
    quoted = body(await alice.post("/v1/payments/quote", {**asked, "amount_msat": 100_000}), 200)
    assert (quoted["kind"], quoted["amount_msat"]) == ("lightning", 100_000)
    fixed = await alice.post("/v1/payments/quote", {**asked, "destination": service.lnurl("fixed")})
    assert body(fixed, 200)["amount_msat"] == 1_000
    assert service.invoices == []


async def test_a_payment_that_is_under_way_asks_for_no_second_invoice(bank: Bank, service: Service) -> None:
    alice = await bank.open_account(funds_msat=1_000_000)
    request: Any = {"key": "late", "amount_msat": 100_000, "wait_s": 0}
    destination = service.lnurl("honest")
    async with without_workers(bank):
        accepted = body(await alice.pay(destination, **request), 202)
        asked = len(service.asked)
        again = await alice.pay(destination, **request)
        assert (body(again, 202)["id"], again.headers["Idempotency-Replayed"]) == (accepted["id"], "true")
        assert len(service.asked) == asked
    assert (await alice.final(accepted["id"]))["status"] == "settled"


# Being paid


async def test_our_own_address_settles_in_the_ledger(bank: Bank) -> None:
    name = fresh_name()
    alice, bob = await bank.open_account(funds_msat=1_000_000), await bank.open_account(username=name)
    domain = str(bank.http.base_url).removeprefix("http://").rstrip("/")
    paid = body(await alice.pay(f"{name.upper()}@{domain}", amount_msat=400_000, memo="lunch"), 201)
    assert (paid["kind"], paid["status"], paid["fee_msat"], paid["payment_hash"]) == ("internal", "settled", 0, None)
    assert (await bob.wallet())["available_msat"] == 400_000


async def test_somebody_outside_pays_our_address_and_can_verify_it(bank: Bank, shop: Outside) -> None:
    name = fresh_name()
    bob = await bank.open_account(username=name)
    offer = await public(bank, f"/.well-known/lnurlp/{name}")
    asked = await public(bank, offer["callback"], amount=250_000, comment="thanks")
    await shop.pay(asked["pr"])

    async def settled() -> Json | None:
        found = await public(bank, asked["verify"])
        return found if found["settled"] else None

    verified = await eventually(settled, "the address to be paid")
    invoice = bolt11.decode(asked["pr"], network="regtest")
    assert invoice.description_hash == hashlib.sha256(offer["metadata"].encode()).hexdigest()
    assert hashlib.sha256(bytes.fromhex(verified["preimage"])).hexdigest() == invoice.payment_hash
    (row,) = body(await bob.get(f"/v1/wallets/{bob.wallet_id}/transactions"), 200)["items"]
    assert (row["amount_msat"], row["memo"], row["direction"]) == (250_000, "thanks", "in")


async def test_one_of_our_users_pays_such_an_invoice_and_the_preimage_stays_ours(bank: Bank) -> None:
    name = fresh_name()
    alice = await bank.open_account(funds_msat=1_000_000)
    await bank.open_account(username=name)
    asked = await public(bank, f"/lnurlp/{name}/callback", amount=250_000)
    assert body(await alice.pay(asked["pr"]), 201)["kind"] == "internal"
    assert await public(bank, asked["verify"]) == {
        "status": "OK", "settled": True, "preimage": None, "pr": asked["pr"],
    }  # fmt: skip


async def test_a_tip_page_shows_when_it_was_paid_from_outside(bank: Bank, shop: Outside) -> None:
    name = fresh_name()
    bob = await bank.open_account(username=name)
    made = await bank.http.post(f"/pay/{name}", data={"amount_sat": "21", "memo": "for the music"})
    assert made.status_code == 303
    page = made.headers["location"]
    text = re.search(r"lightning:(lnbcrt[0-9a-z]+)", (await bank.http.get(page)).text)
    assert text is not None
    await shop.pay(text[1])

    async def paid() -> bool | None:
        return True if "Paid. Thank you!" in (await bank.next_api().get(page)).text else None

    await eventually(paid, "the page to say that it is paid")
    assert (await bob.wallet())["available_msat"] == 21_000


# Withdraw links


async def make_link(user: Account, amount_msat: int, **asked: Any) -> Json:
    sent = {"wallet_id": user.wallet_id, "amount_msat": amount_msat, **asked}
    return body(await user.post("/v1/withdraw-links", sent), 201)


async def claim(bank: Bank, link: Json, pr: str) -> Json:
    """As a wallet does: look, then claim with that k1."""
    gift = await public(bank, link["url"])
    return gift if "k1" not in gift else await public(bank, gift["callback"], k1=gift["k1"], pr=pr)


async def payments_of(user: Account) -> list[Json]:
    items: list[Json] = body(await user.get("/v1/payments", limit=100), 200)["items"]
    return items


async def test_a_link_is_claimed_from_outside(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=1_000_000)
    link = await make_link(alice, 300_000, memo="a gift")
    pr = await shop.invoice(300_000)
    gift = await public(bank, link["url"])
    for _ in range(3):
        assert await public(bank, gift["callback"], k1=gift["k1"], pr=pr) == {"status": "OK"}
    (payment,) = await payments_of(alice)
    assert (await alice.final(payment["id"]))["status"] == "settled"
    assert (payment["amount_msat"], payment["memo"]) == (300_000, "a gift")
    used = body(await alice.get(f"/v1/withdraw-links/{link['id']}"), 200)
    assert (used["uses_left"], used["status"]) == (0, "used_up")
    assert "used" in (await claim(bank, link, await shop.invoice(300_000)))["reason"]
    other = await public(bank, gift["callback"], k1=gift["k1"], pr=await shop.invoice(300_000))
    assert "another invoice" in other["reason"]


@pytest.mark.parametrize("uses", [1, 3])
async def test_fifty_claims_at_once_are_paid_as_often_as_promised(bank: Bank, shop: Outside, uses: int) -> None:
    alice = await bank.open_account(funds_msat=5_000_000)
    link = await make_link(alice, 50_000, uses=uses)
    gifts = [await public(bank, link["url"]) for _ in range(50)]
    invoices = [await shop.invoice(50_000) for _ in range(50)]
    answers = await asyncio.gather(
        *(public(bank, gift["callback"], k1=gift["k1"], pr=pr) for gift, pr in zip(gifts, invoices, strict=True))
    )
    assert [answer["status"] for answer in answers].count("OK") == uses
    assert all("used" in answer["reason"] for answer in answers if answer["status"] == "ERROR")
    payments = await payments_of(alice)
    assert len(payments) == uses
    for payment in payments:
        assert (await alice.final(payment["id"]))["status"] == "settled"
    assert body(await alice.get(f"/v1/withdraw-links/{link['id']}"), 200)["uses_left"] == 0


async def test_one_k1_at_once_with_many_invoices_is_one_payment(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=1_000_000)
    link = await make_link(alice, 50_000, uses=10)
    gift = await public(bank, link["url"])
    invoices = [await shop.invoice(50_000) for _ in range(8)]
    answers = await asyncio.gather(*(public(bank, gift["callback"], k1=gift["k1"], pr=pr) for pr in invoices))
    assert [answer["status"] for answer in answers].count("OK") == 1
    assert len(await payments_of(alice)) == 1


async def test_our_own_user_claims_in_the_ledger(bank: Bank) -> None:
    alice, bob = await bank.open_account(funds_msat=1_000_000), await bank.open_account()
    link = await make_link(alice, 300_000)
    assert await claim(bank, link, (await bob.invoice(300_000))["bolt11"]) == {"status": "OK"}
    (payment,) = await payments_of(alice)
    assert (payment["kind"], payment["status"], payment["fee_msat"]) == ("internal", "settled", 0)
    assert (await bob.wallet())["available_msat"] == 300_000


async def test_a_claim_that_fails_gives_its_use_back(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=1_000_000)
    link = await make_link(alice, 300_000)
    held = await shop.hold_invoice(300_000)
    assert await claim(bank, link, held.bolt11) == {"status": "OK"}
    assert "used" in (await claim(bank, link, await shop.invoice(300_000)))["reason"]
    await accepted(shop, held.payment_hash)
    await shop.cancel(held.payment_hash)
    (payment,) = await payments_of(alice)
    assert (await alice.final(payment["id"]))["status"] == "failed"
    assert body(await alice.get(f"/v1/withdraw-links/{link['id']}"), 200)["uses_left"] == 1
    assert await claim(bank, link, await shop.invoice(300_000)) == {"status": "OK"}


async def test_a_claim_without_money_spends_no_use_and_says_nothing_of_the_owner(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=100_000)
    link = await make_link(alice, 300_000)
    refused = await claim(bank, link, await shop.invoice(300_000))
    assert refused == {
        "status": "ERROR",
        "reason": "The owner of this link cannot pay it at the moment; ask the owner.",
    }
    assert body(await alice.get(f"/v1/withdraw-links/{link['id']}"), 200)["uses_left"] == 1
    await bank.fund(alice, 500_000)
    assert await claim(bank, link, await shop.invoice(300_000)) == {"status": "OK"}


async def test_a_link_dies_with_the_key_that_made_it(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=1_000_000)
    link = await make_link(alice, 300_000)
    (key,) = body(await alice.get(f"/v1/accounts/{alice.id}/api-keys"), 200)["items"]
    body(await bank.http.delete(f"/v1/accounts/{alice.id}/api-keys/{key['id']}", headers=bank.admin), 200)
    assert "withdrawn by its owner" in (await claim(bank, link, await shop.invoice(300_000)))["reason"]
    assert int(await bank.database.fetchval("SELECT count(*) FROM bank.payments WHERE account_id = $1", alice.id)) == 0


async def test_claims_count_towards_the_caps_of_the_key_that_made_the_link(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=1_000_000)
    made = await bank.http.post(
        f"/v1/accounts/{alice.id}/api-keys",
        json={"name": "capped", "scopes": ["read", "receive", "send"], "spend_limit_sat": {"day": 100}},
        headers=bank.admin,
    )
    capped = replace(alice, headers={"Authorization": f"Bearer {body(made, 201)['key']}"})
    link = await make_link(capped, 60_000, uses=5)
    assert await claim(bank, link, await shop.invoice(60_000)) == {"status": "OK"}
    assert "ask the owner" in (await claim(bank, link, await shop.invoice(60_000)))["reason"]
    assert body(await alice.get(f"/v1/withdraw-links/{link['id']}"), 200)["uses_left"] == 4
    problem(await capped.pay(await shop.invoice(60_000)), 409, "spend_limit_exceeded")


async def test_a_claim_survives_every_worker(bank: Bank, shop: Outside) -> None:
    alice = await bank.open_account(funds_msat=1_000_000)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    link = await make_link(alice, 300_000, expires_at=later)
    pr = await shop.invoice(300_000)
    gift = await public(bank, link["url"])
    async with without_workers(bank):
        assert await public(bank, gift["callback"], k1=gift["k1"], pr=pr) == {"status": "OK"}

    async def opened() -> Json | None:
        found = await payments_of(alice)
        return found[0] if found else None

    payment = await eventually(opened, "the claim to be opened")
    assert (await alice.final(payment["id"]))["status"] == "settled"


async def test_a_link_cannot_pay_its_own_wallet(bank: Bank) -> None:
    alice = await bank.open_account(funds_msat=1_000_000)
    link = await make_link(alice, 300_000)
    refused = await claim(bank, link, (await alice.invoice(300_000))["bolt11"])
    assert refused["status"] == "ERROR"
    assert body(await alice.get(f"/v1/withdraw-links/{link['id']}"), 200)["uses_left"] == 1
    async with outside(bank.stack, "outside-1") as router:
        assert await claim(bank, link, await router.invoice(300_000)) == {"status": "OK"}
