"""Payments to addresses of this bank, settled in the books: alone, in a batch, and never on the chain."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from api.service.address.address import AddressOrder, make_address
from api.service.batch import batch_run
from api.service.batch.batch_item import BatchItemOrder
from api.service.batch.order import BatchOrder
from api.service.batch.pay import pay_batch
from api.service.deadline import Deadline
from api.service.payment import payment_run
from api.service.payment.answer import PaymentAnswer
from api.service.payment.order import PaymentOrder
from api.service.payment.pay import pay
from engine.domain.errors import Conflict, Invalid
from engine.domain.money import Msat
from tests.fixtures.postgres import Database
from tests.helpers.address.pool import address_of, fill_pool
from tests.helpers.use_case import Desk, Owner, Worker, open_desk

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture(scope="module")
async def desk(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    async with open_desk(shared_ledger_db, tmp_path_factory.mktemp("desk")) as desk:
        conn = await asyncpg.connect(shared_ledger_db.owner_dsn)
        await fill_pool(conn, 20)
        await conn.close()
        yield desk


@pytest.fixture(autouse=True)
def worker(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Worker:
    made_up = Worker(desk)
    monkeypatch.setattr(payment_run, "start", made_up.start)
    monkeypatch.setattr(batch_run, "start", made_up.start_batch)
    monkeypatch.setattr(batch_run, "wait_for_end", made_up.wait_for_batch)
    return made_up


async def address_for(desk: Desk, owner: Owner) -> str:
    order = AddressOrder(wallet_id=owner.wallet_id)
    made = await make_address(desk.resources, owner.caller, order, key=None, body_hash=b"")
    return made.content.address


async def paid(desk: Desk, payer: Owner, destination: str, key: str, **more: Any) -> PaymentAnswer:
    body_hash = hashlib.sha256(repr((destination, more)).encode()).digest()
    order = PaymentOrder(
        wallet_id=payer.wallet_id, destination=destination, key=key, body_hash=body_hash, max_fee_msat=Msat(0), **more
    )
    return await pay(desk.resources, payer.caller, order, Deadline(0))


async def test_a_payment_to_an_address_of_ours_is_settled_in_the_books(desk: Desk) -> None:
    alice, bob = await desk.open_account(funds_msat=10_000_000), await desk.open_account()
    address = await address_for(desk, bob)
    first = await paid(desk, alice, address, "k", amount_msat=Msat(700))
    assert (first.payment.status, first.payment.kind, first.payment.destination) == ("settled", "internal", address)
    again = await paid(desk, alice, address, "k", amount_msat=Msat(700))
    assert (again.payment, again.is_replay) == (first.payment, True)
    with pytest.raises(Conflict):
        await paid(desk, alice, address, "k", amount_msat=Msat(701))
    by_uri = await paid(desk, alice, f"BITCOIN:{address.upper()}?amount=0.00005", "uri")
    assert (by_uri.payment.amount_msat, by_uri.payment.destination) == (5_000_000, address)
    assert (await desk.available(alice), await desk.available(bob)) == (10_000_000 - 5_000_700, 5_000_700)


async def test_a_batch_pays_addresses_of_ours_and_no_others(desk: Desk) -> None:
    alice, bob = await desk.open_account(funds_msat=10_000_000), await desk.open_account()
    address, free = await address_for(desk, bob), address_of(19)

    def batch(*items: BatchItemOrder, key: str) -> BatchOrder:
        body_hash = hashlib.sha256(repr(items).encode()).digest()
        return BatchOrder(wallet_id=alice.wallet_id, items=items, key=key, body_hash=body_hash)

    with_amount = BatchItemOrder(destination=f"bitcoin:{address}?amount=0.00001")
    order = batch(BatchItemOrder(destination=address, amount_msat=Msat(300)), with_amount, key="b")
    answer = await pay_batch(desk.resources, alice.caller, order, Deadline(0))
    assert [item.amount_msat for item in answer.content.items] == [300, 1_000_000]
    assert await desk.available(bob) == 1_000_300
    for destination, amount_msat, code in (
        (free, 1, "use_withdrawals"),
        (address_of(10**9), 1, "use_withdrawals"),
        (address_of(5, network="mainnet"), 1, "wrong_network"),
        (f"bitcoin:{address}?amount=0.00001", 1, "amount_mismatch"),
        (address, None, "amount_required"),
        (address[:-1] + ("q" if address[-1] != "q" else "p"), 1, "invalid_destination"),
        (await address_for(desk, alice), 1, "self_payment"),
    ):
        item = BatchItemOrder(destination=destination, amount_msat=None if amount_msat is None else Msat(amount_msat))
        with pytest.raises(Invalid) as refused:
            await pay_batch(desk.resources, alice.caller, batch(with_amount, item, key="refused"), Deadline(0))
        assert (refused.value.code, refused.value.fields["item"]) == (code, 1)
    assert await desk.available(bob) == 1_000_300
