"""What the bank keeps of payments in flight, on a real Postgres: waits, sightings, caps, what is never tried again."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from activities.payment import Payments
from engine.bank import sending
from engine.bank.in_flight import Caps
from engine.bank.payable import require_payable
from engine.contracts.payment import OpenedPayment, PaymentRequest, ReleasePayment
from engine.domain.errors import Refused
from engine.domain.ids import AccountId, PaymentHash, PaymentId, WalletId, new_id
from engine.domain.money import Msat
from engine.domain.sending import LOST_ATTEMPT, Waiting
from engine.ledger import chart
from tests.fixtures.postgres import Database
from tests.helpers.api import Api, User, running_api
from tests.helpers.teller import Teller, open_teller

pytestmark = pytest.mark.integration

BODY_HASH = "ab" * 32


@pytest_asyncio.fixture
async def api(ledger_db: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(ledger_db.app_dsn, ledger_db.owner_dsn, tmp_path, rate_limit_per_minute=0) as api:
        yield api


@pytest_asyncio.fixture
async def teller(api: Api) -> Teller:
    return await open_teller(api)


def _payments(teller: Teller, *, per_account: int = 100, per_node: int = 100) -> Payments:
    return Payments(teller.pool, chart.Chart(), Caps(per_account=per_account, per_node=per_node))


async def _rich(api: Api, teller: Teller) -> User:
    user = await api.open_account()
    await teller.receive(user, 50_000_000)
    return user


def _request(payer: User, payment_hash: str = "") -> PaymentRequest:
    return PaymentRequest(
        payment_id=PaymentId(new_id("pay")),
        account_id=AccountId(payer.id),
        wallet_id=WalletId(payer.wallet_id),
        idempotency_key=secrets.token_hex(8),
        body_hash=BODY_HASH,
        destination="somewhere",
        bolt11="lnbcrt1somebody",
        payment_hash=PaymentHash(payment_hash or secrets.token_hex(32)),
        amount_msat=Msat(1_000_000),
        max_fee_msat=Msat(10_000),
    )


def _code(opened: OpenedPayment) -> str | None:
    return opened.outcome.refusal.code if opened.outcome.refusal else None


async def _waiting(payer: User, payment_id: str) -> dict[str, object]:
    body = (await payer.get(f"/v1/payments/{payment_id}")).json()
    found: dict[str, object] = body["waiting"]
    return found


async def test_a_wait_is_told_and_keeps_its_beginning_until_the_reason_changes(api: Api, teller: Teller) -> None:
    alice = await _rich(api, teller)
    asked = _request(alice)
    await _payments(teller).open_payment(asked)
    assert (await _waiting(alice, asked.payment_id))["reason"] == "sending"
    async with teller.pool.acquire() as conn:
        away = Waiting(reason="node_unavailable", detail="it is down", impatient=True)
        await sending.note_wait(conn, asked.payment_id, away)
        first = await _waiting(alice, asked.payment_id)
        await sending.note_wait(conn, asked.payment_id, Waiting(reason="node_unavailable", detail="it starts"))
        second = await _waiting(alice, asked.payment_id)
        await sending.note_wait(conn, asked.payment_id, Waiting(reason="in_flight", detail="the payee"))
        third = await _waiting(alice, asked.payment_id)
    assert (first["reason"], first["needs_operator"]) == ("node_unavailable", False)
    assert (second["since"], second["detail"]) == (first["since"], "it starts")
    assert third["since"] != first["since"]


async def test_a_payment_that_does_not_go_on_keeps_its_beginning_whatever_the_reason(api: Api, teller: Teller) -> None:
    """Reasons that take turns would begin the fifteen minutes anew each time; only the node's having it does."""
    alice = await _rich(api, teller)
    asked = _request(alice)
    await _payments(teller).open_payment(asked)
    reasons = ("outcome_unknown", "sending", "node_unavailable", "ledger_unavailable", "sending", "outcome_unknown")
    async with teller.pool.acquire() as conn:
        told, seen = [], []
        for reason in reasons:
            waiting = Waiting(reason=reason, detail="…", impatient=True)
            told.append(await sending.note_wait(conn, asked.payment_id, waiting))
            seen.append((await _waiting(alice, asked.payment_id))["needs_operator"])
            await api.database.execute("UPDATE bank.payment_waits SET since = since - interval '4 minutes'")
        assert [(told[0] - each) // timedelta(minutes=4) for each in told] == [0, 1, 2, 3, 4, 5]
        assert seen == [False] * 4 + [True] * 2
        begun = await sending.note_wait(conn, asked.payment_id, Waiting(reason="in_flight", detail="the payee"))
        away = Waiting(reason="node_unavailable", detail="…", impatient=True)
        assert await sending.note_wait(conn, asked.payment_id, away) >= begun > told[0]
    assert (await _waiting(alice, asked.payment_id))["needs_operator"] is False


async def test_refusals_in_the_same_words_are_counted_whichever_worker_hears_them(api: Api, teller: Teller) -> None:
    alice = await _rich(api, teller)
    asked = _request(alice)
    await _payments(teller).open_payment(asked)
    heard = []
    for words in ("at 12:01 of ab12", "At 12:02 of cd34", "at 12:03 of ef56", "something\0else", "x" * 9_000):
        async with teller.pool.acquire() as conn:
            await sending.note_refusal(conn, asked.payment_id, words)
            fence = await sending.find_fence(conn, asked.payment_id, attempt=1)
        assert fence is not None
        assert 0 <= fence.refused_for_s < 60
        heard.append(fence.refusals)
    assert heard == [1, 2, 3, 1, 1]


async def test_a_wait_for_our_own_node_that_lasts_needs_an_operator(api: Api, teller: Teller) -> None:
    alice = await _rich(api, teller)
    asked = _request(alice)
    await _payments(teller).open_payment(asked)
    for reason, impatient in (("node_unavailable", True), ("in_flight", False)):
        waiting = Waiting(reason=reason, detail="…", impatient=impatient)
        async with teller.pool.acquire() as conn:
            await sending.note_wait(conn, asked.payment_id, waiting)
            await api.database.execute("UPDATE bank.payment_waits SET since = since - interval '20 minutes'")
            await sending.note_wait(conn, asked.payment_id, waiting)
        assert (await _waiting(alice, asked.payment_id))["needs_operator"] is impatient


async def test_a_final_payment_waits_for_nothing(api: Api, teller: Teller) -> None:
    alice = await _rich(api, teller)
    asked, payments = _request(alice), _payments(teller)
    await payments.open_payment(asked)
    async with teller.pool.acquire() as conn:
        await sending.note_wait(conn, asked.payment_id, Waiting(reason="in_flight", detail="the payee"))
    await payments.release_payment(_release(asked, "no_route"))
    body = (await alice.get(f"/v1/payments/{asked.payment_id}")).json()
    assert (body["status"], body["waiting"]) == ("failed", None)


def _release(asked: PaymentRequest, code: str) -> ReleasePayment:
    return ReleasePayment(
        payment_id=asked.payment_id, failure_code=code, failure_detail="", payment_index=3, body_hash=BODY_HASH
    )


async def test_a_sighting_counts_once_per_height_and_cannot_be_changed(api: Api, teller: Teller) -> None:
    alice = await _rich(api, teller)
    asked = _request(alice)
    await _payments(teller).open_payment(asked)
    async with teller.pool.acquire() as conn:
        for height in (205, 204, 205):
            await sending.add_sighting(conn, asked.payment_id, height=height, time_lock=200, payment_index=3)
        assert await sending.list_sightings(conn, asked.payment_id, payment_index=3) == [204, 205]
        assert await sending.list_sightings(conn, asked.payment_id, payment_index=4) == []
    for statement in ("UPDATE bank.lost_sightings SET height = 999", "DELETE FROM bank.lost_sightings"):
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await api.database.execute(statement)


async def test_a_lost_payment_is_never_sent_again_and_a_failed_one_is(api: Api, teller: Teller) -> None:
    alice, payments = await _rich(api, teller), _payments(teller)
    for code, again in (("no_route", None), (LOST_ATTEMPT, "invoice_unpayable")):
        asked = _request(alice)
        await payments.open_payment(asked)
        await payments.release_payment(_release(asked, code))
        assert _code(await payments.open_payment(_request(alice, asked.payment_hash or ""))) == again
    assert asked.payment_hash is not None
    async with teller.pool.acquire() as conn:
        with pytest.raises(Refused, match="lost an attempt"):  # so a quote tells it, too
            await require_payable(conn, asked.payment_hash)


async def test_old_news_is_counted_for_each_node(api: Api, teller: Teller) -> None:
    """The second attempt goes over another node, whose own count of payments is far behind the first one's."""
    alice, payments = await _rich(api, teller), _payments(teller)
    await api.database.execute(
        "INSERT INTO bank.nodes(name, pubkey, outbound_msat) VALUES ('lnd-2', $1, 10)", "03" + "cd" * 32
    )
    payment_hash, told = secrets.token_hex(32), []
    for node, ended_with in (("lnd-1", 29), ("lnd-2", 3), ("lnd-1", 30), ("lnd-2", 4)):
        await api.database.execute(
            "UPDATE bank.nodes SET outbound_msat = CASE name WHEN $1 THEN 1000000000000 ELSE 0 END", node
        )
        asked = _request(alice, payment_hash)
        attempt = (await payments.open_payment(asked)).attempt
        assert attempt is not None
        told.append((attempt.node, attempt.attempt, attempt.known_payment_index))
        await payments.release_payment(replace(_release(asked, "no_route"), payment_index=ended_with))
    assert told == [("lnd-1", 1, 0), ("lnd-2", 2, 0), ("lnd-1", 3, 29), ("lnd-2", 4, 3)]


async def test_an_accounts_cap_is_exact_also_when_all_come_at_once(api: Api, teller: Teller) -> None:
    alice, bob = await _rich(api, teller), await _rich(api, teller)
    payments = _payments(teller, per_account=5)
    requests = [_request(alice) for _ in range(12)]
    opened = await asyncio.gather(*(payments.open_payment(asked) for asked in requests))
    assert sorted(_code(each) or "" for each in opened) == [""] * 5 + ["too_many_in_flight"] * 7
    assert _code(await payments.open_payment(_request(bob))) is None
    first = next(asked for asked, each in zip(requests, opened, strict=True) if each.attempt)
    await payments.release_payment(_release(first, "no_route"))
    assert _code(await payments.open_payment(_request(alice))) is None


async def test_a_nodes_cap_counts_the_payments_of_everybody(api: Api, teller: Teller) -> None:
    alice, bob = await _rich(api, teller), await _rich(api, teller)
    payments = _payments(teller, per_node=2)
    codes = [_code(await payments.open_payment(_request(user))) for user in (alice, bob, alice)]
    assert codes == [None, None, "too_many_in_flight"]
    held_msat = (await alice.get(f"/v1/wallets/{alice.wallet_id}")).json()["held_msat"]
    assert held_msat == 1_010_000
