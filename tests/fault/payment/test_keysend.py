"""A node is paid without an invoice: once, with one preimage, whatever dies between the hold and the send.

The bank's own processes do not allow it; these tests ask an API that does.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from engine.clients.lndrpc import lightning_pb2 as ln
from infra.local.home import BANK
from infra.local.outside import Outside, outside, sync_network
from tests.fixtures.own_process import own_api
from tests.fixtures.stack import Account, Bank, Json, eventually

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]


@pytest_asyncio.fixture
async def api(bank: Bank) -> AsyncIterator[httpx.AsyncClient]:
    async with own_api(bank.stack, {"MILLRACE_KEYSEND": "true"}) as client:
        yield client


async def pubkey(node: Outside) -> str:
    return (await node.stubs.lightning.GetInfo(ln.GetInfoRequest())).identity_pubkey


async def pay(api: httpx.AsyncClient, user: Account, **body: Any) -> httpx.Response:
    headers = {**user.headers, "Idempotency-Key": body.pop("key", secrets.token_hex(8)), "Prefer": body.pop("wait", "")}
    return await api.post("/v1/payments", json={"wallet_id": user.wallet_id, **body}, headers=headers)


async def received(shop: Outside, amount_msat: int) -> list[ln.Invoice]:
    """What the payee got of this amount without having asked for it."""
    listed = await shop.stubs.lightning.ListInvoices(ln.ListInvoiceRequest(num_max_invoices=1_000, reversed=True))
    return [each for each in listed.invoices if each.is_keysend and each.amt_paid_msat == amount_msat]


async def test_a_node_gets_a_payment_that_it_did_not_ask_for_once(
    bank: Bank, shop: Outside, api: httpx.AsyncClient
) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    amount_msat = 2_000_000 + secrets.randbelow(1_000_000)
    order: Json = {"destination": (await pubkey(shop)).upper(), "amount_msat": amount_msat, "key": "present"}
    asked = {"wallet_id": alice.wallet_id, "destination": order["destination"], "amount_msat": amount_msat}
    quote = (await api.post("/v1/payments/quote", json=asked, headers=alice.headers)).json()
    answer = await pay(api, alice, **order)
    paid, again = answer.json(), (await pay(api, alice, **order)).json()
    assert (answer.status_code, paid["status"]) == (201, "settled"), paid
    assert (paid["destination"], paid["kind"], again) == (order["destination"].lower(), "lightning", paid)
    assert (quote["fee_msat"], quote["fee_source"]) == (paid["fee_msat"], "probe")
    (got,) = await received(shop, amount_msat)
    assert (got.r_preimage.hex(), got.r_hash.hex()) == (paid["preimage"], paid["payment_hash"])
    assert (await alice.wallet())["available_msat"] == 9_000_000 - amount_msat - paid["fee_msat"]


async def test_workers_killed_between_hold_and_send_send_the_same_preimage(
    bank: Bank, shop: Outside, api: httpx.AsyncClient
) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    amount_msat = 2_000_000 + secrets.randbelow(1_000_000)
    order = {"destination": await pubkey(shop), "amount_msat": amount_msat}
    for name in BANK:
        await asyncio.to_thread(bank.stack.hold, name)
    try:
        answer = await pay(api, alice, **order, wait="wait=0")
        assert answer.status_code == 202, answer.text

        async def kept() -> str | None:
            found: str | None = await bank.database.fetchval(
                "SELECT preimage FROM bank.keysends WHERE payment_id = $1", answer.json()["id"]
            )
            return found

        preimage = await eventually(kept, "the money to be held")
        assert (await alice.payment(answer.json()["id"]))["preimage"] is None
        await asyncio.gather(*(asyncio.to_thread(bank.stack.kill, f"worker-{number}") for number in (1, 2)))
    finally:
        for name in BANK:
            await asyncio.to_thread(bank.stack.release, name)
    await sync_network(bank.stack)
    paid = await alice.final(answer.json()["id"], limit_s=120)
    assert (paid["status"], paid["preimage"]) == ("settled", preimage), paid
    assert len(await received(shop, amount_msat)) == 1


async def test_keysend_needs_the_setting_an_amount_and_a_node_that_is_not_ours(
    bank: Bank, shop: Outside, api: httpx.AsyncClient
) -> None:
    alice = await bank.open_account(funds_msat=9_000_000)
    there = await pubkey(shop)
    async with outside(bank.stack, "lnd-1") as ours:
        here = await pubkey(ours)
    for path in ("/v1/payments", "/v1/payments/quote", "/v1/decode"):
        body = {"destination": there} | ({} if path.endswith("decode") else {"wallet_id": alice.wallet_id})
        refused = await alice.post(path, body, key=secrets.token_hex(8))
        assert (refused.status_code, refused.json()["code"]) == (422, "keysend_disabled"), refused.text
    assert (await pay(api, alice, destination=there)).json()["code"] == "amount_required"
    assert (await pay(api, alice, destination=here, amount_msat=1_000)).json()["code"] == "invalid_destination"
    told = await api.post("/v1/decode", json={"destination": there}, headers=alice.headers)
    assert (told.json()["kind"], told.json()["payee"], told.json()["own"]) == ("keysend", there, False)
