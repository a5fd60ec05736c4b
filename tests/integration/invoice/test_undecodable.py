"""Invoices that our reader takes and our node does not: refused before anything is held, whoever brings them."""

import asyncio
import secrets
import time
from collections.abc import Sequence

import httpx
import pytest

from infra.local.outside import outside
from tests.fixtures.stack import Account, Bank
from tests.helpers.invoice.bolt11_encoder import Draft, Field, to_words

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

AMOUNT_MSAT = 1_000_000
UNREADABLE: dict[str, Sequence[Field]] = {
    "an address of the wrong length": [("f", [0, *to_words(b"\x01" * 5)])],
    "an address without any content": [("f", [0])],
    "metadata whose padding is not zero": [("m", [1])],
    "a blinded path that breaks off": [("5", to_words(b"\x01" * 7))],
}


def unreadable(extra: Sequence[Field]) -> str:
    """A sound invoice of nobody with these fields added; each call gives another."""
    draft = Draft(
        amount=f"{AMOUNT_MSAT}0p",
        timestamp=int(time.time()),
        payment_hash=secrets.token_bytes(32),
        extra=list(extra),
    )
    return draft.text()


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_an_invoice_that_our_node_cannot_read_is_refused_and_nothing_is_held(bank: Bank, kind: str) -> None:
    alice = await bank.open_account(funds_msat=3_000_000)
    text, key = unreadable(UNREADABLE[kind]), secrets.token_hex(8)
    for _ in range(2):  # the refusal is the answer of the key for ever
        refused = await alice.pay(text, key=key)
        assert (refused.status_code, refused.json()["code"]) == (422, "invoice_refused_by_node"), refused.text
    assert (await alice.wallet())["available_msat"] == 3_000_000
    assert await bank.database.fetchval("SELECT count(*) FROM bank.payments WHERE bolt11 = $1", text) == 0
    quoted = await alice.post(
        "/v1/payments/quote", {"wallet_id": alice.wallet_id, "destination": unreadable(UNREADABLE[kind])}
    )
    assert (quoted.status_code, quoted.json()["code"]) == (422, "invoice_refused_by_node"), quoted.text


async def test_many_at_once_are_refused_side_by_side_and_a_good_one_among_them_is_paid(bank: Bank) -> None:
    """They share a lane."""
    alice = await bank.open_account(funds_msat=9_000_000)
    async with outside(bank.stack, "outside-2") as shop:
        good = await shop.invoice(AMOUNT_MSAT)
    bad = [unreadable(fields) for fields in UNREADABLE.values() for _ in range(3)]
    answers = await asyncio.gather(*(alice.pay(text) for text in [*bad, good]))
    assert [each.json().get("code") for each in answers[:-1]] == ["invoice_refused_by_node"] * len(bad)
    assert answers[-1].json()["status"] == "settled", answers[-1].text


async def _claim(bank: Bank, alice: Account, text: str) -> tuple[httpx.Response, str]:
    made = await alice.post(
        "/v1/withdraw-links",
        {"wallet_id": alice.wallet_id, "amount_msat": AMOUNT_MSAT},
        key=secrets.token_hex(8),
    )
    assert made.status_code == 201, made.text
    path = httpx.URL(made.json()["url"]).raw_path.decode()
    gift = (await bank.http.get(path)).json()
    answer = await bank.http.get(f"{path}/callback", params={"k1": gift["k1"], "pr": text})
    return answer, made.json()["id"]


async def test_a_stranger_with_a_withdraw_link_is_told_and_the_link_keeps_its_use(bank: Bank) -> None:
    alice = await bank.open_account(funds_msat=3_000_000)
    answer, link_id = await _claim(bank, alice, unreadable(UNREADABLE["an address of the wrong length"]))
    assert answer.json()["status"] == "ERROR", answer.text
    link = (await alice.get(f"/v1/withdraw-links/{link_id}")).json()
    assert (link["status"], link["uses_left"]) == ("open", 1)
    assert (await alice.wallet())["available_msat"] == 3_000_000
