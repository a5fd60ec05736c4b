"""What was to be new and is not, or was to change and is not there, stops the transaction and calls an operator."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from engine.bank import payment
from engine.domain.errors import EngineError, InvariantBroken
from engine.domain.ids import AccountId, WalletId, WithdrawLinkId
from engine.domain.money import Msat
from engine.ledger.account import get_account_id
from engine.ledger.book import Posting, credit, debit
from engine.ledger.chart import Chart, channels, user
from engine.ledger.database import Connection, change_any, change_one, change_rows, transaction
from engine.ledger.postings.payment import reserved
from engine.ledger.store import post_in_tx, post_new_batch_in_tx, post_new_in_tx
from tests.fixtures.postgres import Database
from tests.helpers.api import User
from tests.helpers.payer import NODE, Payers, running_payers

pytestmark = pytest.mark.integration

FUNDS, AMOUNT, CAP = 50_000_000, 1_000_000, 5_000


@pytest_asyncio.fixture
async def payers(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Payers]:
    async with running_payers(ledger_db, tmp_path) as payers:
        yield payers


@pytest_asyncio.fixture
async def alice(payers: Payers) -> User:
    opened = await payers.api.open_account()
    await payers.fund(opened, FUNDS)
    return opened


async def _gift(conn: Connection, to: User) -> Posting:
    legs = [
        debit(await get_account_id(conn, channels(NODE)), 1_000),
        credit(await get_account_id(conn, user(WalletId(to.wallet_id))), 1_000),
    ]
    return Posting(ref="gift", template="test", phase="post", actor="test", legs=legs)


async def test_a_posting_that_was_to_be_new_and_is_not_is_a_contradiction(payers: Payers, alice: User) -> None:
    async with transaction(payers.pool) as conn:
        gift = await _gift(conn, alice)
        await post_new_in_tx(conn, gift)
    with pytest.raises(InvariantBroken) as broken:
        async with transaction(payers.pool) as conn:
            await post_new_in_tx(conn, gift)
    assert broken.value.code == "posting_not_new"
    async with transaction(payers.pool) as conn:
        fresh, repeated = await post_new_batch_in_tx(conn, [replace(gift, ref="other gift"), gift])
    assert fresh is None
    assert isinstance(repeated, EngineError)
    assert repeated.code == "posting_not_new"
    assert await alice.balance() == (FUNDS + 2_000, 0)


async def test_a_payment_whose_hold_is_in_the_books_already_is_not_opened(payers: Payers, alice: User) -> None:
    """Whatever let it come about: nothing is left of it, so nothing is sent."""
    asked = payers.request(alice, None, AMOUNT)
    legs_of = payers.request(alice, None, AMOUNT, payment_id="pay_earlier", payment_hash=asked.payment_hash)
    async with transaction(payers.pool) as conn:
        new = payment.NewPayment(
            id=legs_of.payment_id,
            account_id=AccountId(alice.id),
            wallet_id=WalletId(alice.wallet_id),
            kind="lightning",
            status="pending",
            destination="x",
            amount_msat=Msat(AMOUNT),
            max_fee_msat=Msat(CAP),
            payment_hash=asked.payment_hash,
            bolt11="x",
            node=NODE,
            attempt=1,
            workflow_id="w",
        )
        account = await get_account_id(conn, user(WalletId(alice.wallet_id)))
        held = reserved(await Chart().load(conn), new, account)
        await post_new_in_tx(conn, held)
        void = Posting(
            ref=f"ln:{asked.payment_hash}:void:1", template="t", phase="void", actor="test", relates_to=[held.ref]
        )
        await post_new_in_tx(conn, void)
    with pytest.raises(EngineError) as broken:
        await payers.payments.open_payment(asked)
    assert broken.value.code in {"posting_not_new", "reference_conflict"}
    assert await alice.balance() == (FUNDS, 0)
    assert await payers.api.database.fetchval("SELECT count(*) FROM bank.payments") == 0
    assert await payers.api.database.fetchval("SELECT count(*) FROM bank.idempotency_keys") == 0


async def test_a_use_of_a_link_that_was_given_back_is_not_given_back_again(payers: Payers, alice: User) -> None:
    await payers.api.database.execute(
        """INSERT INTO bank.withdraw_links(id, account_id, wallet_id, key_id, amount_msat, uses, uses_left)
           SELECT 'wdl_1', $1, $2, max(id), $3, 2, 2 FROM bank.api_keys WHERE account_id = $1""",
        alice.id,
        alice.wallet_id,
        AMOUNT,
    )
    opened = await payers.pay(alice, None, AMOUNT, withdraw_link_id=WithdrawLinkId("wdl_1"))
    await payers.api.database.execute("UPDATE bank.withdraw_claims SET returned_at = now()")
    with pytest.raises(InvariantBroken, match="1 rows were to be changed"):
        await payers.release(opened)
    assert await alice.balance() == (FUNDS, AMOUNT + CAP)
    await payers.api.database.execute("UPDATE bank.withdraw_claims SET returned_at = NULL")
    await payers.release(opened)
    await payers.release(opened)
    assert await payers.api.database.fetchval("SELECT uses_left FROM bank.withdraw_links") == 2


async def test_a_payment_that_has_ended_is_not_ended_again_behind_its_row(payers: Payers, alice: User) -> None:
    opened = await payers.pay(alice, None, AMOUNT)
    assert opened.attempt is not None
    await payers.release(opened)
    with pytest.raises(InvariantBroken, match="1 rows were to be changed"):
        async with transaction(payers.pool) as conn:
            await payment.mark_settled_in_tx(
                conn, opened.attempt.payment_id, fee_msat=Msat(0), preimage="00" * 32, payment_index=1
            )


async def test_a_change_says_how_many_rows_there_are(payers: Payers, alice: User) -> None:
    everybody, nobody = "UPDATE bank.accounts SET level = 0", "UPDATE bank.accounts SET level = 0 WHERE id = 'nobody'"
    await payers.api.open_account()
    async with transaction(payers.pool) as conn:
        await change_rows(conn, 2, everybody)
        await change_any(conn, nobody)
        for query, count in ((nobody, 1), (everybody, 1), (everybody, 3)):
            with pytest.raises(InvariantBroken, match=f"{count} rows were to be changed"):
                await (change_one(conn, query) if count == 1 else change_rows(conn, count, query))


async def test_a_repeat_that_is_allowed_gives_the_first_transfer(payers: Payers, alice: User) -> None:
    async with transaction(payers.pool) as conn:
        gift = await _gift(conn, alice)
        first, second = await post_in_tx(conn, gift), await post_in_tx(conn, gift)
    assert (first.fresh, second.fresh, first.transfer_id) == (True, False, second.transfer_id)
