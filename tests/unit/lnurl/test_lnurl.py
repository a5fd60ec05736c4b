"""LNURL's words, and what a payer believes of the answers."""

import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.address import site
from api.service.invoice.payee import strangers_memo
from engine.clients.lnurl.payee import Offer, ask_for_invoice, look_up, look_up_address
from engine.clients.lnurl.web import Web
from engine.domain import bech32
from engine.domain.errors import Invalid
from engine.domain.lnurl import (
    COMMENT_LENGTH,
    MAX_URL_LENGTH,
    description_hash,
    metadata_of_user,
    plain_text,
    read_lnurl,
    write_lnurl,
)
from engine.domain.money import MAX_AMOUNT_MSAT, Msat
from tests.helpers.invoice.bolt11_encoder import Draft, to_words
from tests.helpers.lnurl import LNURL, URL

pytestmark = pytest.mark.unit

METADATA = '[["text/plain","Tea"]]'
OFFER = Offer(
    callback="https://b.example/cb", min_msat=Msat(1_000), max_msat=Msat(9_000), metadata=METADATA, comment_length=5
)


class Told:
    """Gives one answer, and keeps what it was asked."""

    scheme = "https"

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def ask(self, url: str, query: dict[str, str] | None = None) -> Any:
        self.asked.append((url, query or {}))
        return self.answer


def web(answer: Any) -> Web:
    return cast("Web", Told(answer))


def invoice(amount_msat: int = 5_000, metadata: str = METADATA, **changed: Any) -> str:
    hashed = [("h", to_words(bytes.fromhex(description_hash(metadata))))]
    return Draft(**{"amount": f"{amount_msat}0p", "without": "d", "extra": hashed, **changed}).text()


def test_the_example_of_lud_01_is_read_and_written() -> None:
    assert read_lnurl(LNURL.upper()) == URL
    assert write_lnurl(URL) == LNURL


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=300))
def test_every_url_comes_back(url: str) -> None:
    assert read_lnurl(write_lnurl(url)) == url


@pytest.mark.parametrize(
    "text",
    [
        bech32.write("lnurx", bech32.to_words(b"https://a.example")),
        bech32.write("lnurl", bech32.to_words("https://ä.example".encode())),
        bech32.write("lnurl", bech32.to_words(b"https://a.example/\n")),
        bech32.write("lnurl", bech32.to_words(b"h" * (MAX_URL_LENGTH + 1))),
        bech32.write("lnurl", [*bech32.to_words(b"https://a.example"), 1]),
        "lnurl1",
        "",
    ],
    ids=["prefix", "not ascii", "control character", "long", "padding", "empty", "nothing"],
)
def test_a_text_that_is_no_lnurl_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_lnurl(text)
    assert refused.value.code == "invalid_destination"


def test_the_metadata_of_a_user_names_the_address_in_lower_case() -> None:
    told = json.loads(metadata_of_user("Bob", "pay.example"))
    assert told == [["text/plain", "Payment to bob"], ["text/identifier", "bob@pay.example"]]


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        (METADATA, "Tea"),
        ('[["image/png;base64","x"],["text/plain","Tea"]]', "Tea"),
        ('[["text/plain",7],["text/plain"],7,"text/plain"]', None),
        ('{"text/plain":"Tea"}', None),
        ("7", None),
        ("not json", None),
        ("[" * 100_000, None),
        ('[["text/plain","\\ud800"]]', "\ufffd"),
    ],
)
def test_a_description_is_taken_from_any_metadata(metadata: str, text: str | None) -> None:
    assert plain_text(metadata) == text


async def test_an_address_is_asked_at_its_domain() -> None:
    told = Told(
        {
            "tag": "payRequest",
            "callback": "https://b.example/cb",
            "minSendable": 1000,
            "maxSendable": 9000.0,
            "metadata": METADATA,
            "commentAllowed": 5,
        }
    )
    assert await look_up_address(cast("Web", told), "bob", "b.example") == OFFER
    assert told.asked == [("https://b.example/.well-known/lnurlp/bob", {})]


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"tag": "withdrawRequest"}, "does not take payments"),
        ({"tag": None}, "does not take payments"),
        ({"callback": None}, "no callback"),
        ({"metadata": [["text/plain", "Tea"]]}, "no metadata"),
        ({"metadata": "x" * 200_001}, "no metadata"),
        ({"metadata": '[["text/identifier","bob@b.example"]]'}, "what is paid for"),
        ({"metadata": "Tea"}, "what is paid for"),
        ({"minSendable": "1000"}, "minSendable"),
        ({"minSendable": -1}, "minSendable"),
        ({"maxSendable": 1.5}, "maxSendable"),
        ({"maxSendable": True}, "maxSendable"),
        ({"maxSendable": 0}, "no amount"),
        ({"minSendable": 3}, "no amount"),
        ({"status": "ERROR", "reason": "closed\x00 <b>" + "x" * 500}, 'it says "closed +<b>x{100,}"'),
        ({"status": "error"}, "no reason"),
    ],
)
async def test_an_offer_that_is_none_is_refused(changed: dict[str, Any], word: str) -> None:
    answer = {"tag": "payRequest", "callback": "c", "minSendable": 1, "maxSendable": 2, "metadata": METADATA, **changed}
    with pytest.raises(Invalid, match=word) as refused:
        await look_up(web(answer), "https://b.example")
    assert refused.value.code == "invalid_destination"
    assert len(refused.value.detail) < 300


async def test_an_offer_with_the_largest_picture_is_taken() -> None:
    metadata = json.dumps([["text/plain", "Tea"], ["image/png;base64", "x" * 136_536]])
    answer = {"tag": "payRequest", "callback": "c", "minSendable": 0, "maxSendable": 2, "metadata": metadata}
    offer = await look_up(web(answer), "https://b.example")
    assert (offer.min_msat, offer.metadata) == (1, metadata)


async def test_a_limit_above_all_money_is_the_largest_amount() -> None:
    answer = {"tag": "payRequest", "callback": "c", "minSendable": 1, "maxSendable": 10**30, "metadata": METADATA}
    assert (await look_up(web(answer), "https://b.example")).max_msat == MAX_AMOUNT_MSAT


async def test_an_invoice_is_asked_for_with_the_comment_that_fits() -> None:
    for comment, sent in (("tea", {"comment": "tea"}), ("too long", {}), (None, {})):
        told = Told({"pr": invoice()})
        found = await ask_for_invoice(cast("Web", told), OFFER, Msat(5_000), comment, network="regtest")
        assert (found.invoice.amount_msat, found.success_action) == (5_000, None)
        assert told.asked == [("https://b.example/cb", {"amount": "5000", **sent})]


@pytest.mark.parametrize(
    ("answer", "code", "word"),
    [
        ({"pr": invoice(5_001)}, "invalid_destination", "another amount"),
        ({"pr": invoice(amount="")}, "invalid_destination", "another amount"),
        ({"pr": invoice(metadata="[]")}, "invalid_destination", "something else"),
        ({"pr": Draft(amount="50000p").text()}, "invalid_destination", "something else"),
        ({"pr": invoice(prefix="lnbc")}, "wrong_network", "regtest"),
        ({"pr": "lnbcrt1"}, "invalid_destination", "not an invoice"),
        ({"pr": None}, "invalid_destination", "no invoice"),
        ({}, "invalid_destination", "no invoice"),
        ({"status": "ERROR", "reason": "busy"}, "invalid_destination", "busy"),
        ({"pr": invoice(), "successAction": {"tag": "lottery"}}, "invalid_destination", "kind that we do not know"),
    ],
)
async def test_an_invoice_that_is_not_what_was_asked_for_is_refused(answer: Any, code: str, word: str) -> None:
    with pytest.raises(Invalid, match=word) as refused:
        await ask_for_invoice(web(answer), OFFER, Msat(5_000), None, network="regtest")
    assert refused.value.code == code


@pytest.mark.parametrize(("amount_msat", "code"), [(999, "amount_too_small"), (9_001, "amount_mismatch")])
async def test_outside_the_bounds_nobody_is_asked(amount_msat: int, code: str) -> None:
    told = Told({})
    with pytest.raises(Invalid) as refused:
        await ask_for_invoice(cast("Web", told), OFFER, Msat(amount_msat), None, network="regtest")
    assert refused.value.code == code
    assert refused.value.fields == {"min_msat": 1_000, "max_msat": 9_000}
    assert told.asked == []


def test_a_comment_always_fits_into_a_memo() -> None:
    assert len(("🧡" * COMMENT_LENGTH).encode()) <= 639
    assert strangers_memo(" a\x00b\r\n c ") == "a b  c"
    assert strangers_memo(" \u202e\0") is None


@pytest.mark.parametrize(
    ("host", "counted_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::"),
        ("", "unknown"),
    ],
)
def test_a_client_is_counted_by_its_address_or_its_site(host: str, counted_as: str) -> None:
    assert site(host) == counted_as
