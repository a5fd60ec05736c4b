"""What a destination string is, by its shape."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.destination import (
    Destination,
    Invoice,
    LightningAddress,
    Lnurl,
    NodeKey,
    OnChain,
    Username,
    WalletRef,
    read_destination,
)
from engine.domain.errors import Invalid
from engine.domain.ids import WalletId
from engine.domain.username import check_username
from tests.helpers.lnurl import LNURL, URL

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("lnbcrt1abc", Invoice("lnbcrt1abc")),
        ("LNBC10U1ABC", Invoice("LNBC10U1ABC")),
        ("lightning:lnbc1abc", Invoice("lnbc1abc")),
        ("LIGHTNING:LNBC1ABC", Invoice("LNBC1ABC")),
        ("bitcoin:bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4?amount=1&lightning=lnbc1abc", Invoice("lnbc1abc")),
        ("BITCOIN:?LIGHTNING=LNBC1ABC", Invoice("LNBC1ABC")),
        ("@bob", Username("bob")),
        ("@Bob_99", Username("Bob_99")),
        ("wallet:wal_01", WalletRef(WalletId("wal_01"))),
        ("02" + "AB" * 32, NodeKey("02" + "ab" * 32)),
        ("bob@example.com", LightningAddress("bob", "example.com")),
        ("Bob.B+tips@Pay.Example.com:8443", LightningAddress("bob.b+tips", "pay.example.com:8443")),
        ("lnbob@example.com", LightningAddress("lnbob", "example.com")),
        (LNURL, Lnurl(LNURL, URL)),
        (LNURL.upper(), Lnurl(LNURL, URL)),
        (f"lightning:{LNURL}", Lnurl(LNURL, URL)),
        (f"bitcoin:?lightning={LNURL.upper()}", Lnurl(LNURL, URL)),
    ],
)
def test_each_kind_is_told_by_its_shape(text: str, destination: Destination) -> None:
    assert read_destination(text) == destination


@pytest.mark.parametrize(
    "text",
    [
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4",
        "bcrt1qs758ursh4q9z627kt3pp5yysm78ddny6txaqgw",
        "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
        "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr",
        "1RustyRX2oai4EYYDpQGWvEL62BBGqN9T",
        "3EktnHQD7RiAE6uzMj2ZifT9YgRrkSgzQX",
        "mk2QpYatsKicvFVuTAQLBryyccRXMUaGHP",
        "2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc",
        "bitcoin:bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        "bitcoin:bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4?amount=0.1&label=x",
    ],
)
def test_an_on_chain_address_that_is_not_ours_points_to_withdrawals(text: str) -> None:
    found = read_destination(text)
    assert isinstance(found, OnChain)
    (network, *_others) = found.address.networks
    assert found.refusal(network).code == "use_withdrawals"
    assert found.refusal("another").code == "wrong_network"


def test_a_uri_says_how_much() -> None:
    found = read_destination("bitcoin:BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4?amount=0.1&label=x")
    assert isinstance(found, OnChain)
    assert (found.address.text, found.amount_msat) == ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", 10**10)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("bob@", "lightning address"),
        ("@example.com", "username"),
        ("bob@example.com/x", "lightning address"),
        ("bob@exa mple.com", "lightning address"),
        ("bob@example.com?x=1", "lightning address"),
        ("bob@-example.com", "lightning address"),
        ("bob@example..com", "lightning address"),
        ("bob@example.com:", "lightning address"),
        ("bob@[::1]", "lightning address"),
        ("bob@a@b.com", "lightning address"),
        ("bob@exämple.com", "lightning address"),
        (f"bob@{'a' * 64}.com", "lightning address"),
        (f"{'b' * 65}@example.com", "lightning address"),
        (LNURL[:-1], "checksum"),
        (LNURL[:20] + LNURL[20:].upper(), "lower or all upper"),
        ("LNURL1DP68GURN8GHJ7", "checksum"),
        ("lightning:lnurl1dp68gurn8ghj7", "checksum"),
        ("lno1qcp4256ypq", "not supported yet"),
        ("", "none of"),
        ("hello", "none of"),
        ("lightning://lnbc1abc", "none of"),
        ("bitcoin:?lightning=lnbc1a&lightning=lnbc1b", "two lightning parts"),
        ("bitcoin:?req-pop=x&lightning=lnbc1a", "requires"),
        ("bitcoin:?lightning=", "none of"),
        ("bitcoin:", "not a bitcoin address"),
        ("bitcoin:bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", "checksum"),
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", "checksum"),
        ("1RustyRX2oai4EYYDpQGWvEL62BBGqN9U", "checksum"),
        ("bitcoin:bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4?amount=1.5.5", "no amount"),
        ("bitcoin:bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4?amount=1&amount=1", "two amount"),
        ("@", "username"),
        ("@a b", "username"),
        ("@3bob", "username"),
        ("@bob\n", "username"),
        ("wallet:", "id"),
        ("wallet:a b", "id"),
        ("wallet:\x00", "id"),
        (" @bob", "lightning address"),
        ("l" * 10_001, "10000"),
    ],
)
def test_everything_else_is_refused_with_a_reason(text: str, word: str) -> None:
    with pytest.raises(Invalid, match=word) as refused:
        read_destination(text)
    assert refused.value.code == "invalid_destination"


@pytest.mark.parametrize("name", ["bob", "Bob", "b_1", "_a_", "x" * 50, "lnbc2", "b1c", "0bob", "bc2"])
def test_good_usernames(name: str) -> None:
    assert check_username(name) == name


@pytest.mark.parametrize(
    "name",
    ["ab", "x" * 51, "a b", "bob!", "böb", "1bob", "3bob", "bc1bob", "BC1bob", "LNbc1x", "222", "___", "bob\n", ""],
)
def test_names_that_nobody_may_have(name: str) -> None:
    with pytest.raises(Invalid):
        check_username(name)


@given(st.text(max_size=80) | st.from_regex(r"(lightning:|bitcoin:|wallet:|@|ln)[ -~]{0,60}", fullmatch=True))
def test_no_text_raises_anything_but_invalid(text: str) -> None:
    with suppress(Invalid):
        read_destination(text)
