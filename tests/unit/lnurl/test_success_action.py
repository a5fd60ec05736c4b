"""What is shown to whoever has paid an LNURL: only what LUD-09 and LUD-10 allow, and only what the payment opens."""

from typing import Any

import pytest

from engine.clients.lnurl.success_action import read_success_action, reveal
from engine.domain.errors import Invalid
from tests.helpers.lnurl import IV, PREIMAGE, aes, base64, encrypted

pytestmark = pytest.mark.unit

CALLBACK = "https://shop.example/pay?id=7"


@pytest.mark.parametrize(
    "told",
    [
        {"tag": "message", "message": "ü" * 144},
        {"tag": "url", "description": "Your order", "url": "https://shop.example:8443/order/7"},
        aes(encrypted(b"1234")),
    ],
    ids=lambda told: told["tag"],
)
def test_an_action_within_the_rules_is_kept_and_nothing_beside(told: dict[str, str]) -> None:
    assert read_success_action({**told, "more": "x"}, CALLBACK) == told


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ("Thank you!", "kind"),
        ({}, "kind"),
        ({"tag": "lottery"}, "kind"),
        ({"tag": ["message"]}, "kind"),
        ({"tag": "message"}, "message"),
        ({"tag": "message", "message": "x" * 145}, "at most 144"),
        ({"tag": "message", "message": 7}, "message"),
        ({"tag": "url", "description": "x" * 145, "url": CALLBACK}, "at most 144"),
        ({"tag": "url", "description": "", "url": "https://thief.example/"}, "somebody else"),
        ({"tag": "url", "description": "", "url": "https://shop.example.thief.example/"}, "somebody else"),
        ({"tag": "url", "description": "", "url": "https://shop.example@thief.example/"}, "somebody else"),
        ({"tag": "url", "description": "", "url": "https://me@shop.example/"}, "somebody else"),
        ({"tag": "url", "description": "", "url": "http://shop.example/"}, "somebody else"),
        ({"tag": "url", "description": "", "url": "javascript:alert(1)"}, "somebody else"),
        ({"tag": "url", "description": "", "url": "https://[/"}, "somebody else"),
        (aes("x" * 4097), "at most 4096"),
        (aes(""), "encrypted"),
        (aes("not base 64"), "encrypted"),
        (aes(base64(bytes(17))), "encrypted"),
        (aes(encrypted(b"1234"), iv=base64(bytes(15))), "encrypted"),
    ],
)
def test_an_action_that_breaks_a_rule_is_refused_before_anything_is_paid(told: Any, word: str) -> None:
    with pytest.raises(Invalid, match=word) as refused:
        read_success_action(told, CALLBACK)
    assert refused.value.code == "invalid_destination"


def test_nothing_to_show_is_nothing() -> None:
    assert read_success_action(None, CALLBACK) is None


@pytest.mark.parametrize("text", ["1234", "", "sixteen letters!", "Grüße, 🧡"])
def test_the_payments_preimage_opens_the_text(text: str) -> None:
    action = read_success_action(aes(encrypted(text.encode())), CALLBACK)
    assert action is not None
    assert reveal(action, PREIMAGE) == {"tag": "aes", "description": "Your code", "message": text}


@pytest.mark.parametrize("ciphertext", [encrypted(b"1234", preimage="5f" * 32), encrypted(b"\xff\xfe"), base64(IV)])
def test_a_text_that_does_not_open_is_left_out(ciphertext: str) -> None:
    action = read_success_action(aes(ciphertext), CALLBACK)
    assert action is not None
    assert reveal(action, PREIMAGE) == {"tag": "aes", "description": "Your code"}
