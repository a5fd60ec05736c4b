"""What a node does not begin, and what it could not read in time: held, and given back once.

One worker talks to both nodes through a proxy, which says what no LND can be made to say.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator

import grpc
import httpx
import pytest
import pytest_asyncio

from infra.local.outside import Outside, outside
from infra.local.stack import Stack
from tests.fixtures.stack import Account, Bank, eventually
from tests.helpers.held_payment import node_of, waits_for
from tests.helpers.invoice.bolt11_encoder import Draft
from tests.helpers.wire import Wire, open_wire

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

FUNDS_MSAT, AMOUNT_MSAT = 9_000_000, 2_000_000
WORDS = "unable to frobnicate the payment"


@pytest_asyncio.fixture(scope="module")
async def module_wire(stack: Stack) -> AsyncIterator[Wire]:
    async with open_wire(stack) as wire:
        yield wire


@pytest.fixture
def wire(module_wire: Wire) -> Wire:
    module_wire.renew()
    return module_wire


async def _counted(bank: Bank, payment_id: str, times: int) -> None:
    async def counted() -> bool | None:
        found = await bank.database.fetchval("SELECT times FROM bank.refused_sends WHERE payment_id = $1", payment_id)
        return True if found == times else None

    await eventually(counted, f"{times} refusals to be noted")


async def _all_is_back(alice: Account) -> None:
    wallet = await alice.wallet()
    assert (wallet["available_msat"], wallet["held_msat"]) == (FUNDS_MSAT, 0)


async def test_a_payment_refused_in_unknown_words_has_failed_after_a_last_look(
    bank: Bank, shop: Outside, wire: Wire
) -> None:
    """Its workers die meanwhile, and the count goes on."""
    alice = await bank.open_account(funds_msat=FUNDS_MSAT)
    with wire.refuses("SendPaymentV2", WORDS) as refused:
        answer = await alice.pay(await shop.invoice(AMOUNT_MSAT), wait_s=0)
        payment_id = answer.json()["id"]
        await _counted(bank, payment_id, 3)
        waiting = (await waits_for(alice, payment_id, "send_refused"))["waiting"]
        assert (waiting["needs_operator"], WORDS in waiting["detail"]) == (False, False)
        await wire.worker.restart({})
        ended = await alice.final(payment_id, limit_s=90)
        assert (ended["status"], ended["failure"]["code"]) == ("failed", "invoice_refused_by_node")
        assert sum(fault.hits for fault in refused) == wire.calls("SendPaymentV2") == 3
    await _all_is_back(alice)


async def test_a_send_that_was_on_its_way_all_the_while_is_found_by_the_last_look(
    bank: Bank, shop: Outside, wire: Wire
) -> None:
    """The words were the connection's: what a stopped worker had sent comes to the node afterwards."""
    alice = await bank.open_account(funds_msat=FUNDS_MSAT)
    invoice = await shop.invoice(AMOUNT_MSAT)
    with wire.refuses("SendPaymentV2", WORDS):
        payment_id = (await alice.pay(invoice, wait_s=0)).json()["id"]
        await _counted(bank, payment_id, 3)
        async with outside(bank.stack, await node_of(bank, payment_id)) as node:
            await node.pay(invoice)
        paid = await alice.final(payment_id, limit_s=90)
    assert paid["status"] == "settled"
    assert (await alice.wallet())["available_msat"] == FUNDS_MSAT - AMOUNT_MSAT - paid["fee_msat"]


async def test_other_words_each_time_call_an_operator_and_are_asked_ever_more_rarely(
    bank: Bank, shop: Outside, wire: Wire
) -> None:
    """No proof, so nothing is given back by itself; two operators may, whatever try waits for its turn."""
    alice = await bank.open_account(funds_msat=FUNDS_MSAT)
    words = iter("abcdefghijklmnopqrstuvwxyz" * 100)
    with wire.refuses("SendPaymentV2", "x") as refused:

        async def vary() -> None:
            while True:
                for fault in refused:
                    fault.error = (grpc.StatusCode.UNKNOWN, f"words {next(words)}")
                await asyncio.sleep(0.05)

        varying = asyncio.create_task(vary())
        payment_id = (await alice.pay(await shop.invoice(AMOUNT_MSAT), wait_s=0)).json()["id"]
        await waits_for(alice, payment_id, "send_refused", "sending")

        async def aged() -> bool | None:
            """A payment is shown as sending also before there is a row of what it waits for."""
            row: bool | None = await bank.database.fetchval(
                """UPDATE bank.payment_waits SET since = since - interval '20 minutes' WHERE payment_id = $1
                   RETURNING true""",
                payment_id,
            )
            return row

        await eventually(aged, "a row of what it waits for")

        async def called() -> bool | None:
            found = await alice.payment(payment_id)
            return True if found["waiting"] and found["waiting"]["needs_operator"] else None

        await eventually(called, "an operator to be called")
        await _decide(bank, payment_id)
        ended = await alice.final(payment_id)
        varying.cancel()
    assert (ended["status"], ended["failure"]["code"]) == ("failed", "released_by_operators")
    await _all_is_back(alice)


async def _decide(bank: Bank, payment_id: str) -> None:
    """Two operators, one word each: it is not refused for a try that waits."""
    second = await bank.open_account()
    made = await bank.http.post(
        f"/v1/accounts/{second.id}/api-keys", json={"name": "finance", "scopes": ["finance"]}, headers=bank.admin
    )
    body = {"payment_id": payment_id, "end": "failed", "reason": "looked"}
    proposed = await bank.http.post("/v1/admin/decisions", json=body, headers=bank.admin)
    assert proposed.status_code == 201, proposed.text
    headers = {"Authorization": f"Bearer {made.json()['key']}"}
    path = f"/v1/admin/decisions/{proposed.json()['id']}/approve"
    answer = await bank.http.post(path, json={"note": "looked, too"}, headers=headers)
    assert (answer.status_code, answer.json().get("status")) == (200, "done"), answer.text


def _unreadable() -> str:
    return Draft(
        amount=f"{AMOUNT_MSAT}0p",
        timestamp=int(time.time()),
        payment_hash=secrets.token_bytes(32),
        extra=[("f", [0, 1, 2])],
    ).text()


async def test_an_invoice_that_no_node_could_read_before_the_hold_is_read_before_the_send(
    bank: Bank, wire: Wire
) -> None:
    """Of a withdraw link: it was told OK, and has its use again."""
    alice = await bank.open_account(funds_msat=FUNDS_MSAT)
    made = await alice.post(
        "/v1/withdraw-links", {"wallet_id": alice.wallet_id, "amount_msat": AMOUNT_MSAT}, key=secrets.token_hex(8)
    )
    path = httpx.URL(made.json()["url"]).raw_path.decode()
    with wire.refuses("DecodePayReq", "no answer", grpc.StatusCode.UNAVAILABLE):
        gift = (await bank.http.get(path)).json()
        claimed = await bank.http.get(f"{path}/callback", params={"k1": gift["k1"], "pr": _unreadable()})
        assert claimed.json() == {"status": "OK"}
        payment_id = await bank.database.fetchval("SELECT id FROM bank.payments WHERE account_id = $1", alice.id)
        await waits_for(alice, payment_id, "node_unavailable")
        assert (await alice.get(f"/v1/withdraw-links/{made.json()['id']}")).json()["uses_left"] == 0
    ended = await alice.final(payment_id, limit_s=90)
    assert (ended["status"], ended["failure"]["code"]) == ("failed", "invoice_refused_by_node")
    assert wire.calls("SendPaymentV2") == 0
    assert (await alice.get(f"/v1/withdraw-links/{made.json()['id']}")).json()["uses_left"] == 1
    await _all_is_back(alice)
