"""Something dies while payments over Lightning go together: each is paid once or not at all, and its answer says which.

The moments: with all of them held by the payee; after the payee's word, with Temporal frozen so that nobody is told.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from infra.local.outside import HoldInvoice, Outside
from tests.fixtures.stack import Account, Bank, eventually
from tests.helpers.lane import Answering, lightning_lane

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

WORKERS = ["worker-1", "worker-2"]
FUNDS_MSAT = 20_000_000


@asynccontextmanager
async def in_flight(
    bank: Bank, shop: Outside, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Account, list[HoldInvoice], list[Answering]]]:
    """A lane whose payments the payee has, all of them, and keeps."""
    alice = await bank.open_account(funds_msat=FUNDS_MSAT)
    held = [await shop.hold_invoice(1_000_000 + number) for number in range(4)]
    async with lightning_lane(bank, shop, monkeypatch) as together:
        asked = await together(alice, [each.bolt11 for each in held])
        for each in held:
            await shop.accepted(each)
        yield alice, held, asked


async def settled_once(alice: Account, held: list[HoldInvoice], asked: list[Answering]) -> None:
    """Whatever became of the requests, the books have each payment once, and settled."""
    await asyncio.gather(*asked, return_exceptions=True)

    async def ended() -> list[dict[str, object]] | None:
        mine = (await alice.get("/v1/payments")).json()["items"]
        return mine if all(payment["status"] != "pending" for payment in mine) else None

    payments = await eventually(ended, "every payment to end", limit_s=120)
    assert sorted(str(payment["payment_hash"]) for payment in payments) == sorted(
        each.payment_hash.hex() for each in held
    )
    assert {payment["status"] for payment in payments} == {"settled"}
    spent = sum(int(str(payment["amount_msat"])) + int(str(payment["fee_msat"])) for payment in payments)
    wallet = await alice.wallet()
    assert (wallet["available_msat"], wallet["held_msat"]) == (FUNDS_MSAT - spent, 0)
    for answer in asked:
        if isinstance(done := answer.exception() or answer.result(), httpx.Response) and done.status_code == 201:
            assert done.json()["status"] == "settled"


@pytest.mark.parametrize("victims", [WORKERS, ["temporal"], ["postgres"], ["redis"]], ids=lambda names: names[0])
async def test_killed_with_a_lane_of_payments_in_flight(
    bank: Bank, shop: Outside, monkeypatch: pytest.MonkeyPatch, victims: list[str]
) -> None:
    async with in_flight(bank, shop, monkeypatch) as (alice, held, asked):
        await bank.kill(*victims)
        for each in held:
            await shop.settle(each)
        await settled_once(alice, held, asked)


async def test_workers_killed_after_the_payees_word_and_before_anybody_was_told(
    bank: Bank, shop: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lane is done again: what has ended is found so, and what has not gets a workflow of its own."""
    async with in_flight(bank, shop, monkeypatch) as (alice, held, asked):
        with bank.stack.frozen("temporal"):
            for each in held[:2]:
                await shop.settle(each)
            restarts = {name: bank.stack.process(name).restarts for name in WORKERS}
            for name in WORKERS:
                bank.stack.kill(name, wait=False)
        for each in held[2:]:
            await shop.settle(each)
        for name, count in restarts.items():
            await asyncio.to_thread(bank.stack.wait_back, name, count)
        await settled_once(alice, held, asked)
