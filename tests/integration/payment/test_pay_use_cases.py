"""Pay, quote, decode, pay a batch and claim a withdraw link as any door may: plain calls, real Postgres, no HTTP."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from api.service.batch import batch_run
from api.service.batch.batch_item import BatchItemOrder
from api.service.batch.order import BatchOrder
from api.service.batch.pay import pay_batch, show_batch
from api.service.deadline import Deadline
from api.service.decode import decode
from api.service.payment import payment_run
from api.service.payment.answer import PaymentAnswer
from api.service.payment.order import PaymentOrder
from api.service.payment.pay import pay
from api.service.payment.read import show_payment
from api.service.quote.quote import QuoteOrder, quote
from api.service.withdraw_link.claim import claim, open_link
from api.service.withdraw_link.link import LinkOrder, delete_own_link, make_link, show_link
from engine.contracts import workflow_ids
from engine.contracts.payment import PaymentRequest
from engine.domain.errors import Conflict, EngineError, Invalid, NotFound, Refused
from engine.domain.money import Msat
from engine.domain.routing_cap import default_routing_cap
from tests.fixtures.postgres import Database
from tests.helpers.invoice.bolt11_encoder import Draft
from tests.helpers.use_case import Desk, Owner, Worker, open_desk

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture(scope="module")
async def desk(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    async with open_desk(shared_ledger_db, tmp_path_factory.mktemp("desk")) as desk:
        yield desk


@pytest.fixture(autouse=True)
def worker(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Worker:
    made_up = Worker(desk)
    monkeypatch.setattr(payment_run, "start", made_up.start)
    monkeypatch.setattr(batch_run, "start", made_up.start_batch)
    monkeypatch.setattr(batch_run, "wait_for_end", made_up.wait_for_batch)
    return made_up


def invoice(amount_msat: int = 1_000_000) -> str:
    draft = Draft(amount=f"{amount_msat}0p", timestamp=int(time.time()), payment_hash=secrets.token_bytes(32))
    return draft.text()


def digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def order(payer: Owner, destination: str, key: str, **more: Any) -> PaymentOrder:
    return PaymentOrder(
        wallet_id=payer.wallet_id,
        destination=destination,
        key=key,
        body_hash=digest(destination, more),
        **more,
    )


async def paid(desk: Desk, payer: Owner, destination: str, key: str, **more: Any) -> PaymentAnswer:
    return await pay(desk.resources, payer.caller, order(payer, destination, key, **more), Deadline(0))


async def test_a_user_is_paid_once_for_each_key(desk: Desk, worker: Worker) -> None:
    alice, bob = await desk.open_account(funds_msat=10_000), await desk.open_account(username="use_case_bob")
    first = await paid(desk, alice, "@use_case_bob", "k", amount_msat=Msat(700), memo="lunch")
    assert (first.payment.status, first.payment.kind, first.is_final, first.is_replay) == (
        "settled",
        "internal",
        True,
        False,
    )
    again = await paid(desk, alice, "@use_case_bob", "k", amount_msat=Msat(700), memo="lunch")
    assert (again.payment, again.is_replay) == (first.payment, True)
    assert (await desk.available(alice), await desk.available(bob), len(worker.started)) == (9_300, 700, 1)
    with pytest.raises(Conflict):
        await paid(desk, alice, "@use_case_bob", "k", amount_msat=Msat(701))
    assert await show_payment(desk.resources, alice.caller, first.payment.id) == first.payment
    with pytest.raises(NotFound):
        await show_payment(desk.resources, bob.caller, first.payment.id)


async def test_a_lightning_payment_is_pending_until_it_is_settled(desk: Desk, worker: Worker) -> None:
    alice, text = await desk.open_account(funds_msat=2_000_000), invoice()
    first = await paid(desk, alice, text, "k", max_fee_msat=Msat(9_000))
    assert (first.payment.status, first.payment.max_fee_msat, first.is_final) == ("pending", 9_000, False)
    assert await desk.available(alice) == 991_000
    await worker.settle(worker.opened[0])
    again = await paid(desk, alice, text, "k", max_fee_msat=Msat(9_000))
    assert (again.payment.status, again.is_final, again.is_replay) == ("settled", True, True)
    assert await desk.available(alice) == 1_000_000


async def test_a_refusal_is_the_answer_of_its_key_and_marked_when_it_is_given_again(desk: Desk) -> None:
    poor, rich = await desk.open_account(), await desk.open_account(username="use_case_rich")
    told: list[tuple[str, bool]] = []
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            await paid(desk, poor, "@use_case_rich", "k", amount_msat=Msat(1))
        told.append((refused.value.code, refused.value.is_replay))
    assert told == [("insufficient_funds", False), ("insufficient_funds", True)]
    assert await desk.available(rich) == 0


@pytest.mark.parametrize(
    ("destination", "amount_msat", "code"),
    [("@nobody", 1, "not_found"), ("x", 1, "invalid_destination"), (invoice(), 5, "amount_mismatch")],
)
async def test_an_order_that_cannot_be_paid_leaves_its_key_free(
    desk: Desk, worker: Worker, destination: str, amount_msat: int, code: str
) -> None:
    alice = await desk.open_account(funds_msat=10)
    with pytest.raises((Invalid, NotFound)) as refused:
        await paid(desk, alice, destination, "k", amount_msat=Msat(amount_msat))
    assert refused.value.code == code
    assert worker.started == []
    await desk.open_account(username=f"use_case_{code}"[:20])
    assert (await paid(desk, alice, f"@{f'use_case_{code}'[:20]}", "k", amount_msat=Msat(1))).is_final


async def test_a_quote_is_exact_within_the_bank_and_an_estimate_where_no_node_answers(desk: Desk) -> None:
    alice = await desk.open_account(funds_msat=10)
    await desk.open_account(username="use_case_payee")
    inside = QuoteOrder(wallet_id=alice.wallet_id, destination="@use_case_payee", amount_msat=Msat(500))
    told = await quote(desk.resources, alice.caller, inside)
    assert (told.kind, told.fee_msat, told.fee_source, told.warning) == ("internal", 0, "exact", None)
    told = await quote(desk.resources, alice.caller, QuoteOrder(wallet_id=alice.wallet_id, destination=invoice()))
    cap = default_routing_cap(Msat(1_000_000))
    assert (told.kind, told.fee_msat, told.max_fee_msat, told.fee_source) == ("lightning", cap, cap, "estimate")
    assert told.warning is not None
    assert told.warning.code == "node_unavailable"


async def test_a_destination_is_decoded_and_nothing_is_started(desk: Desk, worker: Worker) -> None:
    text = invoice(5_000)
    told = await decode(desk.resources, f"lightning:{text}")
    assert (told.kind, told.own, told.amount_msat, told.destination) == ("bolt11", False, 5_000, text)
    assert worker.started == []


async def test_a_batch_pays_all_of_its_items_or_none(desk: Desk, worker: Worker) -> None:
    alice, bob = await desk.open_account(funds_msat=100), await desk.open_account()
    to_bob = f"wallet:{bob.wallet_id}"

    def batch(key: str, *amounts_msat: int) -> BatchOrder:
        items = [BatchItemOrder(destination=to_bob, amount_msat=Msat(amount)) for amount in amounts_msat]
        return BatchOrder(wallet_id=alice.wallet_id, items=items, key=key, body_hash=digest(amounts_msat))

    first = await pay_batch(desk.resources, alice.caller, batch("all", 30, 20), Deadline(0))
    assert (first.content.status, first.content.total_msat, first.is_replay) == ("settled", 50, False)
    assert first.content.is_final
    again = await pay_batch(desk.resources, alice.caller, batch("all", 30, 20), Deadline(0))
    assert (again.content, again.is_replay, len(worker.started)) == (first.content, True, 1)
    with pytest.raises(Refused) as refused:
        await pay_batch(desk.resources, alice.caller, batch("none", 30, 21), Deadline(0))
    assert (refused.value.code, refused.value.fields["item"]) == ("insufficient_funds", 1)
    assert (await desk.available(alice), await desk.available(bob)) == (50, 50)
    assert await show_batch(desk.resources, alice.caller, first.content.id) == first.content


async def test_a_withdraw_link_pays_the_invoice_of_whoever_has_it_as_often_as_it_says(desk: Desk) -> None:
    alice = await desk.open_account(funds_msat=3_000_000)
    wanted = LinkOrder(wallet_id=alice.wallet_id, amount_msat=Msat(1_000_000), key="link", body_hash=digest("link"))
    made = await make_link(desk.resources, alice.caller, wanted)
    assert (await make_link(desk.resources, alice.caller, wanted)).is_replay
    assert made.content.url is not None
    sealed_id, text = made.content.url.rpartition("/")[2], invoice()
    k1 = (await open_link(desk.resources, sealed_id)).k1
    for _ in range(2):  # a repeat changes nothing
        await claim(desk.resources, sealed_id, k1, text)
    shown = await show_link(desk.resources, alice.caller, made.content.id)
    assert (shown.status, shown.uses_left) == ("used_up", 0)
    assert await desk.available(alice) == 3_000_000 - 1_000_000 - default_routing_cap(Msat(1_000_000))
    with pytest.raises(Refused, match="used"):
        await open_link(desk.resources, sealed_id)
    with pytest.raises(NotFound):
        await open_link(desk.resources, sealed_id[:-1] + ("0" if sealed_id[-1] != "0" else "1"))
    assert (await delete_own_link(desk.resources, alice.caller, made.content.id)).status == "deleted"


async def test_a_claimant_learns_nothing_of_the_owners_balance(desk: Desk) -> None:
    poor = await desk.open_account()
    wanted = LinkOrder(wallet_id=poor.wallet_id, amount_msat=Msat(1_000_000), key=None, body_hash=digest("link"))
    made = await make_link(desk.resources, poor.caller, wanted)
    assert made.content.url is not None
    sealed_id = made.content.url.rpartition("/")[2]
    k1 = (await open_link(desk.resources, sealed_id)).k1
    with pytest.raises(EngineError) as refused:
        await claim(desk.resources, sealed_id, k1, invoice())
    assert (refused.value.code, refused.value.fields) == ("insufficient_funds", {})
    assert "ask the owner" in refused.value.detail


async def test_a_claim_that_no_worker_opens_is_kept_for_its_first_invoice(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second invoice is not paid, so its claimant is not told OK."""

    async def never() -> None:
        await asyncio.Event().wait()

    async def start(_client: object, _listener: object, request: PaymentRequest, **_payee: str) -> payment_run.Run:
        workflow_id = workflow_ids.payment(request.account_id, request.idempotency_key)
        return payment_run.Run(workflow_id=workflow_id, ended=asyncio.create_task(never()))

    monkeypatch.setattr(payment_run, "start", start)
    monkeypatch.setattr("api.service.withdraw_link.claim._ACCEPT_LIMIT_S", 0)
    alice = await desk.open_account(funds_msat=3_000_000)
    wanted = LinkOrder(wallet_id=alice.wallet_id, amount_msat=Msat(1_000_000), key=None, body_hash=digest("link"))
    url = (await make_link(desk.resources, alice.caller, wanted)).content.url
    assert url is not None
    sealed_id, text = url.rpartition("/")[2], invoice()
    k1 = (await open_link(desk.resources, sealed_id)).k1
    for _ in range(2):
        await claim(desk.resources, sealed_id, k1, text)
    with pytest.raises(Refused, match="another invoice"):
        await claim(desk.resources, sealed_id, k1, invoice())
