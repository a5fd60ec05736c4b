"""Payments over Lightning that go together, on real nodes: each is what it would have been alone."""

import asyncio

import httpx
import pytest
from temporalio.service import RPCError

from engine.contracts import search_attributes
from infra.local.outside import Outside
from tests.fixtures.stack import Bank, eventually
from tests.helpers.lane import codes, lightning_lane, rode

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


async def test_each_is_answered_for_itself_and_one_that_hangs_slows_nobody(
    bank: Bank, shop: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await bank.open_account(funds_msat=50_000_000)
    quick = [await shop.invoice(1_000_000 + number) for number in range(6)]
    cancelled, held, dear = await shop.invoice(2_000_000), await shop.hold_invoice(3_000_000), await shop.invoice(10**9)
    await shop.cancel(
        bytes.fromhex((await alice.post("/v1/decode", {"destination": cancelled})).json()["payment_hash"])
    )
    async with lightning_lane(bank, shop, monkeypatch) as together:
        asked = await together(alice, [*quick, cancelled, dear, held.bolt11])
        *others, hanging = asked
        answers: list[httpx.Response] = await asyncio.gather(*others)
        assert not hanging.done()
        assert codes(answers) == ["settled"] * 6 + ["failed", "insufficient_funds"]
        assert all(rode(answer) for answer in answers[:-1])
        assert len({answer.json()["workflow_id"] for answer in answers[:-1]}) == 1
        assert answers[6].json()["failure"]["code"] == "incorrect_payment_details"
        await shop.accepted(held)
        assert (await alice.wallet())["held_msat"] > 3_000_000
        await shop.settle(held)
        last = await hanging
    assert codes([last]) == ["settled"], last.text
    for answer in [*answers[:-1], last]:
        assert await alice.payment(answer.json()["id"]) == answer.json()
    spent = sum(each.json()["amount_msat"] + each.json()["fee_msat"] for each in [*answers[:6], last])
    wallet = await alice.wallet()
    assert (wallet["available_msat"], wallet["held_msat"]) == (50_000_000 - spent, 0)


async def test_a_payment_that_the_payee_keeps_longer_goes_on_in_a_workflow_of_its_own(
    bank: Bank, shop: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await bank.open_account(funds_msat=50_000_000)
    held = [await shop.hold_invoice(1_000_000 + number) for number in range(3)]
    async with lightning_lane(bank, shop, monkeypatch) as together:
        asked = await together(alice, [each.bolt11 for each in held])
        for each in held:
            await shop.accepted(each)

        temporal = await bank.temporal()

        async def alone() -> bool | None:
            """A payment is handed over a moment before its own workflow is started."""
            for payment in (await alice.get("/v1/payments")).json()["items"]:
                try:
                    own = await temporal.get_workflow_handle(payment["workflow_id"]).describe()
                except RPCError:
                    return None
                if own.typed_search_attributes.get(search_attributes.PAYMENT_HASH) != payment["payment_hash"]:
                    return None
                assert own.raw_description.execution_config.default_workflow_task_timeout.seconds == 5
            return True

        await eventually(alone, "each to have a workflow of its own, found by its hash")
        await shop.settle(held[0])
        await shop.cancel(held[1].payment_hash)
        await shop.settle(held[2])
        answers = await asyncio.gather(*asked)
    assert codes(list(answers)) == ["settled", "failed", "settled"]
    assert not any(rode(answer) for answer in answers)
    assert (await alice.wallet())["held_msat"] == 0


async def test_one_invoice_twice_in_a_lane_is_paid_once(
    bank: Bank, shop: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await bank.open_account(funds_msat=50_000_000)
    invoice = await shop.invoice(1_000_000)
    async with lightning_lane(bank, shop, monkeypatch) as together:
        answers = await asyncio.gather(*await together(alice, [invoice, invoice, invoice]))
    assert set(codes(list(answers))) <= {"settled", "payment_in_progress", "invoice_already_paid"}
    (paid,) = [answer.json() for answer in answers if answer.status_code == 201]
    assert (await alice.wallet())["available_msat"] == 49_000_000 - paid["fee_msat"]
