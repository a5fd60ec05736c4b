"""What strangers say, from the door to the last page: opened, settled, shown, told as a story, listed and exported.

On a real Postgres, with the activities that a worker runs. Whoever lets a hostile text in lets it through to the end.
"""

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_asyncio
from beancount import loader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.clients.lnurl.success_action import read_success_action, storable
from engine.contracts.payment import ReleasePayment
from engine.domain.outside import is_harmless
from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, Json, User
from tests.helpers.hostile import NASTY, texts, values
from tests.helpers.lnurl import CALLBACK, OFFER, aes, encrypted, told
from tests.helpers.payer import Payers, running_payers

pytestmark = pytest.mark.integration

QUIET = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FORM = "application/x-www-form-urlencoded"
LONGEST_FORM = 8_192
"""What the page of a lightning address reads of one."""
PREIMAGE = "00" * 32
"""With which the payments of these tests are settled."""
STUCK: list[dict[str, str]] = [
    {"tag": "message", "message": "Danke\0"},
    {"tag": "message", "message": "Danke\udc80"},
    {"tag": "url", "description": "\0", "url": CALLBACK},
    {"tag": "lottery", "draw": "\0"},
    {},
]


@pytest_asyncio.fixture(scope="module")
async def bank(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Payers]:
    folder = tmp_path_factory.mktemp("api")
    async with running_payers(shared_ledger_db, folder, public_rate_limit_per_minute=0) as payers:
        yield payers


@pytest_asyncio.fixture(scope="module")
async def alice(bank: Payers) -> User:
    user = await bank.api.open_account(username="alice")
    await bank.fund(user, 10**12)
    return user


async def shown_everywhere(bank: Payers, user: User, payment_id: str) -> Json:
    """The payment as its owner sees it, after every page that it stands on was read."""
    payment = await user.get(f"/v1/payments/{payment_id}")
    pages = [
        payment,
        await user.get("/v1/payments", limit=1),
        await user.get(f"/v1/wallets/{user.wallet_id}/transactions", limit=1),
        await user.get(f"/v1/wallets/{user.wallet_id}/statement"),
        await user.get(f"/v1/wallets/{user.wallet_id}/statement", format="csv"),
        await user.http.get("/v1/admin/ledger/export", params={"format": "csv"}, headers=ADMIN),
    ]
    for page in pages:
        assert page.status_code == 200, page.text
    for sheet in pages[4:]:
        rows = list(csv.reader(io.StringIO(sheet.text, newline=""), strict=True))
        assert {len(row) for row in rows} == {len(rows[0])}
    found: Json = payment.json()
    for phase in ("hold:1", "settle" if found["status"] == "settled" else "void:1"):
        ref = f"ln:{found['payment_hash']}:{phase}"
        story = await user.http.get(f"/v1/admin/ledger/transfers/{ref}", headers=ADMIN)
        assert story.status_code == 200, story.text
    return found


async def acceptable_memo(user: User, text: str) -> str | None:
    """The text as the API keeps it, if it takes it as a memo. Two halves of a pair become one character there."""
    body = json.dumps({"wallet_id": user.wallet_id, "amount_msat": 1_000, "memo": text}).encode()
    answer = await user.http.post("/v1/invoices", content=body, headers=user.headers)
    assert answer.status_code in {201, 413, 422}, answer.text
    if answer.status_code != 201:
        return None
    memo: str = answer.json()["memo"]
    return memo


@QUIET
@given(text=texts, kind=st.sampled_from(["message", "url", "aes"]))
async def test_a_payees_text_goes_from_the_answer_to_the_last_page(
    bank: Payers, alice: User, text: str, kind: str
) -> None:
    action: dict[str, Any] = {
        "message": {"tag": "message", "message": text[:144]},
        "url": {"tag": "url", "description": text[:144], "url": CALLBACK},
        "aes": aes(encrypted(text[:500].encode("utf-8", "replace"), preimage=PREIMAGE)),
    }[kind]
    checked = read_success_action(action, CALLBACK)
    opened = await bank.pay(alice, None, 1_000, success_action=checked, memo=await acceptable_memo(alice, text))
    await bank.settle(opened)
    assert opened.attempt is not None
    shown = (await shown_everywhere(bank, alice, opened.attempt.payment_id))["success_action"]
    assert shown["tag"] == kind
    assert all(is_harmless(each) for each in shown.values() if each is not None)


@pytest.mark.parametrize("action", STUCK)
async def test_a_payment_that_an_older_release_has_accepted_is_opened_without_the_text(
    bank: Payers, alice: User, action: dict[str, str]
) -> None:
    """Its workflow tries to open it for ever, with its request as it is in its history."""
    assert storable(action) is None
    opened = await bank.pay(alice, None, 1_000, success_action=action)
    await bank.settle(opened)
    assert opened.attempt is not None
    found = await shown_everywhere(bank, alice, opened.attempt.payment_id)
    assert (found["status"], found["success_action"]) == ("settled", None)


@pytest.mark.parametrize("words", [each for each in NASTY if not set(each) & {"\ud800"}])
async def test_the_reason_of_a_failure_is_booked_whatever_the_node_has_said(
    bank: Payers, alice: User, words: str
) -> None:
    opened = await bank.pay(alice, None, 1_000)
    attempt = opened.attempt
    assert attempt is not None
    ended = await bank.payments.release_payment(
        ReleasePayment(
            payment_id=attempt.payment_id,
            failure_code="no_route",
            failure_detail=words,
            payment_index=1,
            body_hash="00",
        )
    )
    assert ended.status == "failed"
    detail = (await shown_everywhere(bank, alice, attempt.payment_id))["failure"]["detail"]
    assert is_harmless(detail)
    assert len(detail.encode()) <= 1_000


@QUIET
@given(text=texts)
async def test_a_text_sent_without_a_key_becomes_a_harmless_memo_or_is_refused(
    bank: Payers, alice: User, text: str
) -> None:
    form = urlencode({"amount_sat": "21", "memo": text.encode("utf-8", "surrogatepass")})
    page = await alice.http.post("/pay/alice", content=form, headers={"Content-Type": FORM})
    assert page.status_code in ({413} if len(form) > LONGEST_FORM else {303, 422}), page.text
    called = await alice.http.get(
        "/lnurlp/alice/callback", params={"amount": "21000", "comment": text.encode("utf-8", "replace").decode()}
    )
    assert called.status_code == 200, called.text
    for invoice in (await alice.get("/v1/invoices", limit=2)).json()["items"]:
        assert invoice["memo"] is None or is_harmless(invoice["memo"]) or invoice["memo"] == text


@QUIET
@given(value=values, name=st.sampled_from(sorted(OFFER)))
async def test_any_offer_is_read_or_refused_and_never_an_error_of_ours(
    bank: Payers, alice: User, value: object, name: str
) -> None:
    bank.api.change(web=told({**OFFER, name: value}))
    answer = await alice.post("/v1/decode", {"destination": "carol@shop.example"})
    assert answer.status_code in {200, 422, 503}, answer.text
    if answer.status_code == 503:
        assert answer.json()["code"] == "destination_unavailable"
    elif answer.status_code == 422:
        assert answer.json()["code"] == "invalid_destination"
    quote = {"wallet_id": alice.wallet_id, "destination": "carol@shop.example", "amount_msat": 1_000}
    assert (await alice.post("/v1/payments/quote", quote)).status_code in {200, 422, 503}


async def test_the_whole_book_is_still_one_that_beancount_reads(bank: Payers, alice: User) -> None:
    export = await alice.http.get("/v1/admin/ledger/export", params={"format": "beancount"}, headers=ADMIN)
    assert export.status_code == 200, export.text
    _entries, errors, _options = loader.load_string(export.text)
    assert errors == []
