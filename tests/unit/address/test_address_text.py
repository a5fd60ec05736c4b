"""Addresses as text: the vectors of BIP 173 and BIP 350, and what no character may be wrong in."""

import pytest

from engine.domain.address import looks_like_address, read_address
from tests.helpers.address.pool import address_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", "mainnet"),
        ("tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7", "signet"),
        ("bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y", "mainnet"),
        ("BC1SW50QGDZ25J", "mainnet"),
        ("bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs", "mainnet"),
        ("tb1pqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesf3hn0c", "testnet"),
        ("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0", "mainnet"),
        ("1RustyRX2oai4EYYDpQGWvEL62BBGqN9T", "mainnet"),
        ("3EktnHQD7RiAE6uzMj2ZifT9YgRrkSgzQX", "mainnet"),
        ("mk2QpYatsKicvFVuTAQLBryyccRXMUaGHP", "regtest"),
        ("2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc", "testnet"),
    ],
)
def test_right_addresses_are_read(text: str, network: str) -> None:
    found = read_address(text)
    assert network in found.networks
    assert found.text in {text, text.lower()}


@pytest.mark.parametrize(
    "text",
    [
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5",
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd",  # bech32 in place of bech32m
        "BC1S0XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ54WELL",
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kemeawh",  # bech32m in place of bech32
        "BC1QR508D6QEJXTDG4Y5R3ZARVARYV98GJ9P",  # a program of 16 bytes in version 0
        "bc1pw5dgrnzv",  # a program of one byte
        "bc1gmk9yu",  # no program
        "BC130XLXVLHEMJA6C4DQV22UAPCTQUPFHLXM9H8Z3K2E72Q4K9HCZ7VQ7ZWS8R",  # version 17
        "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7v8n0nx0muaewav253zgeav",
        "tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq47Zagq",
        "1RustyRX2oai4EYYDpQGWvEL62BBGqN9U",
        "2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vd",
        "lnbc1abc",
        "",
    ],
)
def test_wrong_addresses_are_refused_with_a_reason(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        read_address(text)


def test_one_wrong_character_is_seen_wherever_it_is() -> None:
    for right in (address_of(7), address_of(7, taproot=True), "1RustyRX2oai4EYYDpQGWvEL62BBGqN9T"):
        assert read_address(right).text == right
        for place in range(len(right)):
            wrong = right[:place] + ("q" if right[place] != "q" else "p") + right[place + 1 :]
            with pytest.raises(ValueError, match=r"\w+"):
                read_address(wrong)
        assert looks_like_address(right)
