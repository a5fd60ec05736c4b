"""No text, number or size of a stranger passes the door that a later step could fail by."""

import json
import unicodedata
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.clients.lnurl import payee
from engine.clients.lnurl.success_action import read_success_action, reveal, storable
from engine.domain.destination import read_destination
from engine.domain.errors import EngineError, Invalid, Unavailable
from engine.domain.lnurl import description_hash, plain_text
from engine.domain.money import MAX_AMOUNT_MSAT, Msat
from engine.domain.outside import is_harmless, lines, one_line, read_json
from tests.helpers.hostile import NASTY, body, numbers, texts, values
from tests.helpers.invoice.bolt11_encoder import Draft, to_words
from tests.helpers.lnurl import CALLBACK, METADATA, OFFER, PREIMAGE, aes, encrypted, told

pytestmark = pytest.mark.property

EACH, MANY = settings(max_examples=100, deadline=None), settings(max_examples=250, deadline=None)
ACTIONS: tuple[dict[str, Any], ...] = (
    {"tag": "message", "message": "Thank you!"},
    {"tag": "url", "description": "Your order", "url": "https://shop.example/7"},
    aes(encrypted(b"1234")),
)


def bears(action: Mapping[str, str] | None) -> None:
    """What Temporal, PostgreSQL and a JSON answer do with it."""
    assert orjson.loads(orjson.dumps(action)) == action
    assert len(orjson.dumps(action)) <= 100_000
    assert not any("\0" in text for text in (action or {}).values())


def is_refusal(refused: EngineError) -> None:
    """Its words, which may repeat a stranger's, are harmless too."""
    assert is_harmless(refused.detail)
    assert len(refused.detail) < 1_000


# Words


@EACH
@given(texts, st.integers(0, 50) | st.just(100_000))
@example("a\ud800\0b", 3)
def test_words_for_people_are_harmless_and_bounded(text: str, limit: int) -> None:
    for made in (one_line(text, limit), lines(text, limit)):
        assert is_harmless(made)
        assert len(made.encode("utf-8")) <= limit
        assert "\0" not in made
    assert "\n" not in one_line(text, limit)
    assert one_line(one_line(text, limit), limit) == one_line(text, limit)
    assert lines(lines(text, limit), limit) == lines(text, limit)


@pytest.mark.parametrize(
    "text", ["Grüße, 🧡", "👩‍👩‍👧‍👦", "שלום \u200f!", "two\nlines", "\u0645\u0631\u062d\u0628\u0627", "", "\ufeff"]
)
def test_a_text_that_people_write_stays_as_it_is(text: str) -> None:
    assert is_harmless(text)
    assert lines(text, 1_000) == text


@pytest.mark.parametrize(
    "text", [each for each in NASTY if set(each) & {"\0", "\x1b", "\x85", "\ud800", "\u202e", "\u2028"}]
)
def test_a_text_that_breaks_a_step_is_told_from_it(text: str) -> None:
    assert not is_harmless(text)


@EACH
@given(texts)
def test_only_controls_directions_and_halves_of_pairs_are_touched(text: str) -> None:
    kept = "".join(character for character in text if unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"})
    bare = "".join(character for character in kept if not "\u202a" <= character <= "\u202e")
    if bare == text and not any("\u2066" <= character <= "\u2069" for character in text):
        assert lines(text, 10**6) == text.strip()


# JSON


@EACH
@given(values)
def test_json_is_read_whole_or_refused(value: object) -> None:
    try:
        found = read_json(body(value))
    except ValueError:
        return
    orjson.dumps(found) if not _has_huge(found) else json.dumps(found)


def _has_huge(value: object) -> bool:
    if isinstance(value, dict):
        return any(_has_huge(each) for each in value.values())
    if isinstance(value, list):
        return any(_has_huge(each) for each in value)
    return isinstance(value, int) and abs(value) >= 2**63


@pytest.mark.parametrize(
    "sent",
    [
        *(b"", b"{", b"\xff", b"\xef\xbb\xbf{}", b"NaN", b"[Infinity]", b'{"a": -Infinity}', b'{"a":1,"a":1}'),
        *(b'"\\ud800"', b'{"\\udfff":1}', b"[" * 50_000, b'{"a":' * 50 + b"1" + b"}" * 50, b"9" * 5_000),
        *(b'[{"b":[{"a":1,"a":2}]}]', b"1 2", b"{'a': 1}"),
    ],
)
def test_json_that_two_programs_would_read_differently_is_refused(sent: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_json(sent)


# LNURL


def _one_changed(whole: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The whole answer with any one of its fields replaced by anything, or anything at all."""
    names = st.sampled_from(sorted(whole))
    return st.builds(lambda name, value: {**whole, name: value}, names, values) | st.dictionaries(
        st.sampled_from([*sorted(whole), "status", "reason"]), values
    )


@MANY
@given(_one_changed(OFFER))
@example({**OFFER, "metadata": '[["text/plain","a\\u0000b"]]'})
@example({**OFFER, "minSendable": 1e300, "maxSendable": 10**400})
@example({"status": "ERROR", "reason": "\0\u202e" * 1_000})
async def test_an_offer_is_refused_or_sound(answer: dict[str, Any]) -> None:
    try:
        offer = await payee.look_up(told(answer), "https://shop.example/")
    except (Invalid, Unavailable) as refused:
        is_refusal(refused)
        return
    assert 1 <= offer.min_msat <= offer.max_msat <= MAX_AMOUNT_MSAT
    assert is_harmless(offer.callback)
    shown = plain_text(offer.metadata)
    assert shown is not None
    assert is_harmless(shown)
    assert offer.comment_length >= 0


def _invoice(amount_msat: int = 1_000, metadata: str = METADATA) -> str:
    hashed = bytes.fromhex(description_hash(metadata))
    return Draft(amount=f"{amount_msat}0p", without="d", extra=[("h", to_words(hashed))]).text()


@MANY
@given(_one_changed({"pr": _invoice(), "routes": [], "successAction": ACTIONS[0]}))
@example({"pr": _invoice(), "successAction": {"tag": "message", "message": "Danke\0"}})
async def test_an_invoice_with_what_is_shown_is_refused_or_sound(answer: dict[str, Any]) -> None:
    offer = await payee.look_up(told(OFFER), "https://shop.example/")
    try:
        given_ = await payee.ask_for_invoice(told(answer), offer, Msat(1_000), None, network="regtest")
    except (Invalid, Unavailable) as refused:
        is_refusal(refused)
        return
    assert given_.invoice.amount_msat == 1_000
    bears(given_.success_action)


@pytest.mark.parametrize("whole", ACTIONS, ids=lambda whole: whole["tag"])
@MANY
@given(data=st.data())
def test_a_text_that_is_shown_afterwards_was_refused_or_is_harmless(whole: dict[str, Any], data: st.DataObject) -> None:
    told_ = data.draw(_one_changed(whole))
    try:
        action = read_success_action(told_, CALLBACK)
    except Invalid as refused:
        is_refusal(refused)
        return
    if action is None:
        return
    bears(action)
    assert all(is_harmless(text) for text in action.values())
    assert storable(action) == action
    shown = reveal(action, PREIMAGE)
    bears(shown)
    assert all(is_harmless(text) for text in shown.values())


@EACH
@given(texts)
def test_a_text_that_only_the_payment_opens_is_harmless_too(text: str) -> None:
    hidden = text.encode("utf-8", "replace")[:2_000]
    action = read_success_action(aes(encrypted(hidden)), CALLBACK)
    assert action is not None
    assert all(is_harmless(each) for each in reveal(action, PREIMAGE).values())


@EACH
@given(st.dictionaries(texts, texts) | st.builds(lambda text: {"tag": "message", "message": text}, texts))
@example({"tag": "message", "message": "\0"})
def test_a_text_that_an_older_release_let_in_is_dropped_or_harmless(kept: dict[str, str]) -> None:
    action = storable(kept)
    if action is not None:
        bears(action)


# Destinations


@EACH
@given(texts | st.builds("{}@{}".format, texts, texts) | st.builds("lightning:{}".format, texts))
def test_a_destination_is_read_or_refused(text: str) -> None:
    try:
        read_destination(text)
    except Invalid as refused:
        is_refusal(refused)


@EACH
@given(numbers)
def test_numbers_of_a_payee_are_amounts_or_none(number: float) -> None:
    found = payee.whole(number)
    assert found is None or (type(found) is int and found >= 0)
