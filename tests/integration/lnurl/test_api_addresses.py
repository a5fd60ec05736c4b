"""Our users as lightning addresses, their tip pages, and withdraw links, with made-up nodes and nobody to pay."""

import base64
import hashlib
import html
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from engine.clients import bolt11
from engine.domain.lnurl import read_lnurl, write_lnurl
from tests.fixtures.postgres import Database
from tests.helpers.api import ADMIN, Api, Json, User, bearer, is_problem, running_api

pytestmark = pytest.mark.integration

PUBLIC = "http://pay.test"


@pytest_asyncio.fixture(scope="module")
async def api(shared_ledger_db: Database, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    folder: Path = tmp_path_factory.mktemp("api")
    async with running_api(shared_ledger_db.app_dsn, shared_ledger_db.owner_dsn, folder) as running:
        yield running


@pytest_asyncio.fixture
async def bob(api: Api) -> User:
    for node in api.nodes.values():
        node.is_up, node.asked = True, []
    known = await api.database.fetchval("SELECT id FROM bank.accounts WHERE username = 'Bob'")
    if known is None:
        return await api.open_account(username="Bob")
    wallet = await api.database.fetchval("SELECT id FROM bank.wallets WHERE account_id = $1", known)
    return User(api.http, known, wallet, bearer(await api.make_key(known, ("read", "receive", "send"))))


async def told(api: Api, path: str, **query: Any) -> Json:
    """What LNURL says; always with 200, and for pages of any site."""
    answer = await api.http.get(path.removeprefix(PUBLIC), params=query or None)
    assert answer.status_code == 200, answer.text
    assert answer.headers["access-control-allow-origin"] == "*"
    found: Json = answer.json()
    return found


async def no(api: Api, path: str, word: str, **query: Any) -> None:
    answer = await told(api, path, **query)
    assert set(answer) == {"status", "reason"}
    assert answer["status"] == "ERROR"
    assert word in answer["reason"]


async def settle(api: Api, payment_hash: str, *, outside: bool) -> None:
    """As a receipt would."""
    await api.database.execute(
        """UPDATE bank.invoices SET status = 'settled', received_msat = amount_msat, settled_at = now(),
                  outside_msat = CASE WHEN $2 THEN amount_msat ELSE 0 END, outside_at = CASE WHEN $2 THEN now() END,
                  paid_by = NULL WHERE payment_hash = $1""",
        payment_hash,
        outside,
    )


async def test_an_address_is_answered_as_lud_06_says(api: Api, bob: User) -> None:
    offer = await told(api, "/.well-known/lnurlp/bob")
    assert offer["tag"] == "payRequest"
    assert (offer["minSendable"], offer["maxSendable"], offer["commentAllowed"]) == (1_000, 100_000_000_000, 150)
    assert offer["metadata"] == '[["text/plain", "Payment to bob"], ["text/identifier", "bob@pay.test"]]'
    assert offer == await told(api, "/.well-known/lnurlp/BOB")

    paid = await told(api, offer["callback"], amount="21001", comment=" thanks\n ☕ ")
    invoice = bolt11.decode(paid["pr"], network="regtest")
    assert invoice.amount_msat == 21_001
    assert invoice.description_hash == hashlib.sha256(offer["metadata"].encode()).hexdigest()
    assert (paid["routes"], paid["successAction"]["tag"]) == ([], "message")
    assert len(paid["successAction"]["message"]) <= 144
    (row,) = [each for each in (await bob.get("/v1/invoices")).json()["items"] if each["bolt11"] == paid["pr"]]
    assert (row["memo"], row["amount_msat"], row["status"]) == ("thanks  ☕", 21_001, "open")


async def test_verify_shows_the_preimage_once_the_network_has_it(api: Api, bob: User) -> None:
    asked = await told(api, "/lnurlp/bob/callback", amount=5_000)
    invoice = bolt11.decode(asked["pr"], network="regtest")
    before = await told(api, asked["verify"])
    assert before == {"status": "OK", "settled": False, "preimage": None, "pr": asked["pr"]}
    await settle(api, invoice.payment_hash, outside=True)
    after = await told(api, asked["verify"])
    assert after["settled"]
    assert hashlib.sha256(bytes.fromhex(after["preimage"])).hexdigest() == invoice.payment_hash


async def test_verify_knows_no_other_invoice(api: Api, bob: User) -> None:
    own = (await bob.post("/v1/invoices", {"wallet_id": bob.wallet_id, "amount_msat": 5_000})).json()
    await no(api, f"/lnurlp/bob/verify/{own['payment_hash']}", "no such invoice")
    await no(api, f"/lnurlp/bob/verify/{'ab' * 32}", "no such invoice")
    await no(api, "/lnurlp/bob/verify/x", "no such invoice")
    asked = await told(api, "/lnurlp/bob/callback", amount=5_000)
    await no(api, asked["verify"].replace("/bob/", "/nobody/"), "no such user")


@pytest.mark.parametrize("amount", ["", "0", "999", "-1", "1e9", "1000.0", "100000000001", "9" * 50, "١٠٠٠", " 1000"])
async def test_amounts_outside_the_bounds_are_refused_in_lnurls_words(api: Api, bob: User, amount: str) -> None:
    await no(api, "/lnurlp/bob/callback", "from 1000 to 100000000000", amount=amount)


async def test_a_comment_has_a_length(api: Api, bob: User) -> None:
    assert "pr" in await told(api, "/lnurlp/bob/callback", amount=1_000, comment="🧡" * 150)
    await no(api, "/lnurlp/bob/callback", "150 characters", amount=1_000, comment="x" * 151)


async def test_an_unknown_or_closed_payee_is_paid_nothing(api: Api, bob: User) -> None:
    for name in ("nobody", "x", "a%00b", "..%2f", "bob%2Fcallback"):
        answer = await api.http.get(f"/.well-known/lnurlp/{name}")
        assert answer.status_code in {200, 404}
        assert "payRequest" not in answer.text
    await api.open_account(username="gone")
    await api.database.execute("UPDATE bank.accounts SET status = 'closed' WHERE username = 'gone'")
    await no(api, "/.well-known/lnurlp/gone", "no such user")
    await no(api, "/lnurlp/gone/callback", "no such user", amount=1_000)
    await api.open_account(username="held")
    await api.database.execute("UPDATE bank.accounts SET status = 'locked' WHERE username = 'held'")
    assert "pr" in await told(api, "/lnurlp/held/callback", amount=1_000)


async def test_with_every_node_down_the_reason_is_lnurls(api: Api, bob: User) -> None:
    for node in api.nodes.values():
        node.is_up = False
    await no(api, "/lnurlp/bob/callback", "No Lightning node", amount=1_000)


# Tip pages


async def ask_for_a_tip(api: Api, **form: str) -> httpx.Response:
    return await api.http.post("/pay/bob", data=form)


async def test_a_tip_page_asks_makes_and_shows(api: Api, bob: User) -> None:
    page = await api.http.get("/pay/Bob")
    assert page.status_code == 200
    assert "bob@pay.test" in page.text
    made = await ask_for_a_tip(api, amount_sat="1234", memo="<script>alert(1)</script>")
    assert made.status_code == 303, made.text
    shown = await api.http.get(made.headers["location"])
    text = re.search(r"lightning:(lnbcrt[0-9a-z]+)", shown.text)
    assert text is not None
    invoice = bolt11.decode(text[1], network="regtest")
    assert (invoice.amount_msat, invoice.description) == (1_234_000, "<script>alert(1)</script>")
    assert "alert" not in shown.text
    assert "<svg" in shown.text
    assert "Waiting" in shown.text
    assert 'http-equiv="refresh"' in shown.text
    await settle(api, invoice.payment_hash, outside=True)
    paid = await api.http.get(made.headers["location"])
    assert "Paid. Thank you!" in paid.text
    assert "<svg" not in paid.text


async def test_a_page_lets_only_its_own_style_and_script_pass(api: Api, bob: User) -> None:
    for page in (await api.http.get("/pay/bob"), await api.http.get("/pay/%3Cb%3E"), await ask_for_a_tip(api)):
        policy = page.headers["content-security-policy"]
        for tag in ("style", "script"):
            (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.text, flags=re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(html.unescape(text).encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"(src|href)=\"?(https?:)?//", page.text)


async def test_a_strangers_words_are_shown_as_text(api: Api) -> None:
    page = await api.http.get('/pay/"><img src=x onerror=alert(1)>')
    assert page.status_code == 404
    assert "<img" not in page.text
    assert "&lt;img" in page.text


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({}, 422),
        ({"amount_sat": "0"}, 422),
        ({"amount_sat": "-5"}, 422),
        ({"amount_sat": "1.5"}, 422),
        ({"amount_sat": "100000001"}, 422),
        ({"amount_sat": "5", "memo": "x" * 151}, 422),
        ({"amount_sat": "5", "memo": "x" * 9_000}, 413),
        ({f"field{number}": "x" for number in range(20)}, 422),
        ({"amount_sat": "100000000", "memo": "ünï ☕"}, 303),
    ],
)
async def test_a_form_may_say_so_much(api: Api, bob: User, form: dict[str, str], status: int) -> None:
    answer = await ask_for_a_tip(api, **form)
    assert answer.status_code == status
    if status == 422:
        assert 'role="status"' in answer.text


async def test_a_page_shows_no_invoice_that_was_not_made_for_the_public(api: Api, bob: User) -> None:
    own = (await bob.post("/v1/invoices", {"wallet_id": bob.wallet_id, "amount_msat": 5_000})).json()
    for payment_hash in (own["payment_hash"], "ab" * 32, "x"):
        assert (await api.http.get(f"/pay/bob/{payment_hash}")).status_code == 404


# Destinations of our own domain


async def test_our_own_domain_is_our_own_user(api: Api, bob: User) -> None:
    for destination in ("bob@pay.test", "BOB@Pay.Test", write_lnurl(f"{PUBLIC}/.well-known/lnurlp/bob")):
        decoded = await bob.post("/v1/decode", {"destination": destination})
        assert decoded.json()["kind"] == "internal", decoded.text
        assert (decoded.json()["own"], decoded.json()["username"]) == (True, "bob")
    is_problem(await bob.post("/v1/decode", {"destination": "nobody@pay.test"}), 404, "not_found")
    for destination in ("x@pay.test", write_lnurl(f"{PUBLIC}/lnurlw/wdl_1"), write_lnurl(f"{PUBLIC}/")):
        is_problem(await bob.post("/v1/decode", {"destination": destination}), 422, "invalid_destination")
    is_problem(await bob.pay("bob@pay.test", amount_msat=5), 422, "self_payment")


# Withdraw links


async def test_a_link_promises_what_was_said(api: Api, bob: User) -> None:
    link = await bob.make_link(21_000, uses=3, memo="a gift")
    assert (link["uses"], link["uses_left"], link["status"], link["expires_at"]) == (3, 3, "open", None)
    assert link["url"].startswith(f"{PUBLIC}/lnurlw/{link['id']}_")
    assert read_lnurl(link["lnurl"]) == link["url"]
    assert (await bob.get(f"/v1/withdraw-links/{link['id']}")).json() == link
    assert (await bob.get("/v1/withdraw-links", limit=1)).json()["items"] == [link]
    gift = await told(api, link["url"])
    assert (gift["tag"], gift["defaultDescription"]) == ("withdrawRequest", "a gift")
    assert (gift["minWithdrawable"], gift["maxWithdrawable"]) == (21_000, 21_000)
    assert gift["callback"] == f"{link['url']}/callback"
    assert gift["k1"] != (await told(api, link["url"]))["k1"]


async def test_the_url_is_the_secret_and_the_id_is_not(api: Api, bob: User) -> None:
    first, second = await bob.make_link(21_000), await bob.make_link(21_000)
    swapped = second["id"] + first["url"][-33:]
    for part in (first["id"], first["id"] + "_", first["id"] + "_" + "0" * 32, swapped, "x", "_"):
        await no(api, f"/lnurlw/{part}", "no such withdraw link")
        await no(api, f"/lnurlw/{part}/callback", "no such withdraw link", k1="ab" * 32, pr="lnbc1")
    stored = await api.database.fetchval("SELECT string_agg(l::text, '') FROM bank.withdraw_links l")
    assert first["url"][-32:] not in stored


async def test_a_link_is_made_once_per_key(bob: User) -> None:
    first = await bob.make_link(21_000, key="1")
    assert await bob.make_link(21_000, key="1") == first
    other = await bob.post("/v1/withdraw-links", {"wallet_id": bob.wallet_id, "amount_msat": 1}, key="1")
    is_problem(other, 409, "idempotency_conflict")


async def test_a_deleted_or_expired_link_gives_nothing(api: Api, bob: User) -> None:
    link = await bob.make_link(21_000)
    for _ in range(2):
        deleted = await bob.http.delete(f"/v1/withdraw-links/{link['id']}", headers=bob.headers)
        assert (deleted.status_code, deleted.json()["status"]) == (200, "deleted")
    await no(api, link["url"], "withdrawn by its owner")
    soon = await bob.make_link(21_000, expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    await api.database.execute("UPDATE bank.withdraw_links SET expires_at = now() WHERE id = $1", soon["id"])
    await no(api, soon["url"], "expired")
    assert (await bob.get(f"/v1/withdraw-links/{soon['id']}")).json()["status"] == "expired"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"uses": 0}, "uses"),
        ({"uses": 1001}, "uses"),
        ({"amount_msat": 0}, "amount_msat"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": 5}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59Z"}, "expires_at"),
        ({"memo": "x" * 640}, "memo"),
    ],
)
async def test_a_wrong_link_is_refused(bob: User, body: Json, field: str) -> None:
    sent = {"wallet_id": bob.wallet_id, "amount_msat": 21_000, **body}
    problem = is_problem(await bob.post("/v1/withdraw-links", sent), 422, "invalid_request")
    assert field in problem["detail"]


async def test_a_link_is_as_good_as_money_and_needs_send(api: Api, bob: User) -> None:
    link = await bob.make_link(21_000)
    reader = User(api.http, bob.id, bob.wallet_id, bearer(await api.make_key(bob.id, ("read", "receive"))))
    other = await api.open_account()
    sent = {"wallet_id": bob.wallet_id, "amount_msat": 21_000}
    for path in ("/v1/withdraw-links", f"/v1/withdraw-links/{link['id']}"):
        is_problem(await reader.get(path), 403, "forbidden")
    is_problem(await reader.post("/v1/withdraw-links", sent), 403, "forbidden")
    is_problem(await other.get(f"/v1/withdraw-links/{link['id']}"), 404, "not_found")
    is_problem(await other.post("/v1/withdraw-links", sent), 404, "not_found")
    gone = await api.http.delete(f"/v1/withdraw-links/{link['id']}", headers=other.headers)
    is_problem(gone, 404, "not_found")
    is_problem(await api.http.get("/v1/withdraw-links", headers=ADMIN), 403, "forbidden")


async def test_a_claim_needs_a_k1_of_this_link_and_an_invoice_over_its_amount(api: Api, bob: User) -> None:
    link, other = await bob.make_link(21_000), await bob.make_link(21_000)
    gift = await told(api, link["url"])
    good = (await told(api, "/lnurlp/bob/callback", amount=21_000))["pr"]
    wrong = (await told(api, "/lnurlp/bob/callback", amount=21_001))["pr"]
    foreign = (await told(api, other["url"]))["k1"]
    garbled = gift["k1"][:-1] + ("0" if gift["k1"][-1] != "0" else "1")
    for k1 in ("", "x", "ab" * 32, foreign, garbled, gift["k1"].upper()):
        await no(api, gift["callback"], "no k1", k1=k1, pr=good)
    await no(api, gift["callback"], "exactly 21000", k1=gift["k1"], pr=wrong)
    for text in ("", "lnbcrt1", "lnurl1", "x" * 8_000):
        await no(api, gift["callback"], "not an invoice", k1=gift["k1"], pr=text)
    await no(api, gift["callback"], "does not answer", k1=gift["k1"], pr=good)  # Temporal is
    assert (await bob.get(f"/v1/withdraw-links/{link['id']}")).json()["uses_left"] == 1
