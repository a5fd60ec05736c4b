"""BOLT 11 as published, and every way in which an invoice is refused."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from coincurve import PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.clients import bolt11
from engine.domain.errors import Invalid
from tests.helpers.invoice.bolt11_encoder import CHARSET, SPEC_KEY, Draft, Field, bech32, number_words, sign, to_words

pytestmark = pytest.mark.unit

SPEC_PAYEE = "03e7156ae33b0a208d0744199163177e909e80176e55d97a2f221ede0f934dd9ad"
SPEC_HASH = "0001020304050607080900010203040506070809000102030405060708090102"
HASH = "pp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypq"
COFFEE = "lnbc25m1pvjluez" + HASH + "dq5vdhkven9v5sxyetpdees" + "sp5" + "zyg3" * 12 + "zygs"
FEATURES = "9q5sqqqqqqqqqqqqqqqpqsq"
COFFEE_BEANS = (
    COFFEE
    + FEATURES
    + "67gye39hfg3zd8rgc80k32tvy9xk2xunwm5lzexnvpx6fd77en8qaq424dxgt56cag2dpt359k3ssyhetktkpqh24jqnjyw6uqd"
    "08sgptq44qu"
)
TO_IGNORE = (
    f"2qrqqqfppn{'q' * 32}ppn{'q' * 51}pp4{'q' * 53}hpn{'q' * 51}hp4{'q' * 53}spn{'q' * 51}sp4{'q' * 53}"
    f"np5{'q' * 52}npk{'q' * 54}"
)
WITH_FIELDS_TO_IGNORE = (
    COFFEE
    + FEATURES
    + TO_IGNORE
    + "2jxxfsnucm4jf4zwtznpaxphce606fvhvje5x7d4gw7n73994hgs7nteqvenq8a4ml8aqtchv5d9pf7l558889h"
    "p4yyrqv6a7zpq9fgpskqhza"
)
HASHED_ON_TESTNET = (
    "lntb20m1pvjluezhp58yjmdan79s6qqdhdzgynm4zwqd5d7xmw5fk98klysy043l2ahrqs"
    + HASH
    + "fpp3x9et2e20v6pu37c5d9vax37wxq72un9"
    "8kmzzhznpurw9sgl2v0nklu2g4d0keph5t7tj9tcqd8rexnd07ux4uv2cjvcqwaxgj7v4uwn5wmypjd5n69z2xm3xgksg28nwht7f6zspwp3f9t"
)
REFUSED = {
    "feature 100": (
        COFFEE
        + "9q4psqqqqqqqqqqqqqqqpqsqq40wa3khl49yue3zsgm26jrepqr2eghqlx86rttutve3ugd05em86nsefzh4pfurpd9ek9w2vp95zxq"
        "nfe2u7ckudyahsa52q66tgzcp6t2dyk"
    ),
    "checksum": (
        "lnbc2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpquwpc4curk03c9wlrswe78q4eyqc7d8d0xqz"
        "puyk0sg5g70me25alkluzd2x62aysf2pyy8edtjeevuv4p2d5p76r4zkmneet7uvyakky2zr4cusd45tftc9c5fh0nnqpnl2jfll544esqchsrnt"
    ),
    "bech32": (
        "pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpquwpc4curk03c9wlrswe78q4eyqc7d8d0xqzpuyk0sg5g7"
        "0me25alkluzd2x62aysf2pyy8edtjeevuv4p2d5p76r4zkmneet7uvyakky2zr4cusd45tftc9c5fh0nnqpnl2jfll544esqchsrny"
    ),
    "upper case": (
        "LNBC2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpquwpc4curk03c9wlrswe78q4eyqc7d8d0xqz"
        "puyk0sg5g70me25alkluzd2x62aysf2pyy8edtjeevuv4p2d5p76r4zkmneet7uvyakky2zr4cusd45tftc9c5fh0nnqpnl2jfll544esqchsrny"
    ),
    "too short": (
        "lnbc1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6n"
        "a6hlh"
    ),
    "prefix": (
        "lnbc2500x1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpujr6jxr9gq9"
        "pv6g46y7d20jfkegkg4gljz2ea2a3m9lmvvr95tq2s0kvu70u3axgelz3kyvtp2ywwt0y8hkx2869zq5dll9nelr83zzqqpgl2zg"
    ),
    "payment secret": (
        "lnbc2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpuaztrnwngzn"
        "3kdzw5hydlzf03qdgm2hdq27cqv3agm2awhz5se903vruatfhq77w3ls4evs3ch9zw97j25emudupq63nyw24cg27h2rspfj9srp"
    ),
}


@pytest.mark.parametrize("text", [COFFEE_BEANS, COFFEE_BEANS.upper(), WITH_FIELDS_TO_IGNORE])
def test_published_invoices_are_read_in_full(text: str) -> None:
    invoice = bolt11.decode(text, network="mainnet")

    assert invoice.bolt11 == text.lower()
    assert invoice.amount_msat == 2_500_000_000
    assert invoice.payment_hash == SPEC_HASH
    assert invoice.payment_secret == "11" * 32
    assert invoice.description == "coffee beans"
    assert invoice.description_hash is None
    assert invoice.payee == SPEC_PAYEE
    assert invoice.created_at == datetime.fromtimestamp(1496314658, UTC)
    assert invoice.expires_at - invoice.created_at == timedelta(hours=1)
    assert invoice.min_final_cltv == 18
    assert invoice.features == {9, 15, 99}


@pytest.mark.parametrize("reason", REFUSED)
def test_published_wrong_invoices_are_refused(reason: str) -> None:
    with pytest.raises(Invalid, match=reason) as refused:
        bolt11.decode(REFUSED[reason], network="mainnet")
    assert refused.value.code == "invalid_destination"


@pytest.mark.parametrize(
    ("text", "network"), [(COFFEE_BEANS, "regtest"), (HASHED_ON_TESTNET, "mainnet"), (Draft().text(), "signet")]
)
def test_another_network_has_its_own_code(text: str, network: str) -> None:
    with pytest.raises(Invalid) as refused:
        bolt11.decode(text, network=network)
    assert refused.value.code == "wrong_network"


@pytest.mark.parametrize(
    ("amount", "amount_msat"),
    [
        ("", None),
        ("1m", 10**8),
        ("2500u", 250_000_000),
        ("10p", 1),
        ("9678785340p", 967_878_534),
        ("1", 10**11),
        ("7n", 700),
    ],
)
def test_amounts_are_whole_millisatoshi(amount: str, amount_msat: int | None) -> None:
    assert bolt11.decode(Draft(amount=amount).text(), network="regtest").amount_msat == amount_msat


@pytest.mark.parametrize(
    "amount", ["1p", "2500000001p", "0", "0n", "01m", "999999999999999999", "1" * 5000, "1x", "n", "-1"]
)
def test_amounts_that_cannot_be_paid_are_refused(amount: str) -> None:
    with pytest.raises(Invalid) as refused:
        bolt11.decode(Draft(amount=amount).text(), network="regtest")
    assert refused.value.code == "invalid_destination"


@pytest.mark.parametrize("tag", [*"psdx9chnm"])
def test_a_field_that_tells_two_stories_is_refused(tag: str) -> None:
    data = {
        "p": to_words(b"\x02" * 32),
        "s": to_words(b"\x02" * 32),
        "h": to_words(b"\x02" * 32),
        "n": to_words(SPEC_KEY.public_key.format()),
    }.get(tag, number_words(1) if tag in "cx9" else to_words(b"other"))
    once = [(tag, data)] if tag in "chnm" else []
    without = "d" if tag == "h" else ""
    bolt11.decode(Draft(without=without, extra=once).text(), network="regtest")
    with pytest.raises(Invalid, match="twice"):
        bolt11.decode(Draft(without=without, extra=[*once, (tag, data)]).text(), network="regtest")


@pytest.mark.parametrize(
    ("draft", "reason"),
    [
        (Draft(without="p"), "no payment hash"),
        (Draft(without="s"), "no payment secret"),
        (Draft(without="d"), "description"),
        (Draft(extra=[("h", to_words(b"\x05" * 32))]), "description"),
        (Draft(description=b"\xff\xfe"), "UTF-8"),
        (Draft(description="\ud800".encode("utf-8", "surrogatepass")), "UTF-8"),
        (Draft(features=1 << 30), "feature 30"),
        (Draft(extra=[("n", to_words(PrivateKey(b"\x07" * 32).public_key.format()))]), "signature"),
        (Draft(extra=[("n", to_words(b"\x09" * 33))]), "public key"),
        (Draft(extra=[("r", to_words(b"\x02" * 50))]), "routing hint"),
        (Draft(extra=[("r", [])]), "routing hint"),
        (Draft(extra=[("r", to_words(b"\x09" * 51))]), "public key"),
        (Draft(without="d", extra=[("d", [31, 31])]), "padded"),
        (Draft(without="x", extra=[("x", [31] * 13)]), "9999"),
        (Draft(without="x", extra=[("x", [1] * 14)]), "bounds"),
        (Draft(extra=[("c", number_words(70_000))]), "year"),
    ],
)
def test_an_invoice_that_cannot_be_paid_safely_is_refused(draft: Draft, reason: str) -> None:
    with pytest.raises(Invalid, match=reason) as refused:
        bolt11.decode(draft.text(), network="regtest")
    assert refused.value.code == "invalid_destination"


def test_a_changed_word_breaks_the_signature_even_with_a_new_checksum() -> None:
    draft = Draft(extra=[("n", to_words(SPEC_KEY.public_key.format()))])
    signature = sign("lnbcrt", draft.words())
    changed = Draft(timestamp=draft.timestamp + 1, extra=draft.extra)
    with pytest.raises(Invalid, match="signature"):
        bolt11.decode(bech32("lnbcrt", [*changed.words(), *signature]), network="regtest")
    with pytest.raises(Invalid, match="signature"):
        bolt11.decode(bech32("lnbcrt", [*draft.words(), *([31] * 104)]), network="regtest")


@pytest.mark.parametrize("extra", [[], [("n", to_words(SPEC_KEY.public_key.format()))]])
def test_both_forms_of_a_signature_name_the_same_payee(extra: list[Field]) -> None:
    for high_s in (False, True):
        assert bolt11.decode(Draft(extra=extra, high_s=high_s).text(), network="regtest").payee == SPEC_PAYEE


def test_the_longest_invoice_is_as_long_as_in_lnd() -> None:
    many = [("f", [0] * 1000)] * 6
    assert len(Draft(extra=many).text()) < bolt11.MAX_LENGTH
    bolt11.decode(Draft(extra=many).text(), network="regtest")
    with pytest.raises(Invalid, match="7089"):
        bolt11.decode(Draft(extra=[*many, *many]).text(), network="regtest")


def test_an_expired_invoice_is_read_and_says_when() -> None:
    invoice = bolt11.decode(Draft(timestamp=1, expiry_s=0).text(), network="regtest")
    assert invoice.expires_at == datetime.fromtimestamp(1, UTC)


def decoded_or_refused(text: str) -> None:
    with suppress(Invalid):
        bolt11.decode(text, network="regtest")


@given(st.text(max_size=300))
def test_no_text_raises_anything_but_invalid(text: str) -> None:
    decoded_or_refused(text)


@settings(max_examples=300)
@given(
    prefix=st.from_regex(r"ln(bcrt|bc|tb|tbs|sb|xx)[0-9]{0,19}[munpx]?", fullmatch=True),
    words=st.lists(st.integers(0, 31), max_size=300),
    signature=st.sampled_from([1, 0]),
)
def test_no_words_with_a_right_checksum_raise_anything_but_invalid(
    prefix: str, words: list[int], signature: int
) -> None:
    decoded_or_refused(bech32(prefix, [*words, *sign(prefix, words) * signature]))


@settings(max_examples=300)
@given(
    extra=st.lists(st.tuples(st.sampled_from(CHARSET), st.lists(st.integers(0, 31), max_size=120)), max_size=5),
    without=st.sampled_from(["", "p", "s", "d", "x", "9", "psdx9"]),
    timestamp=st.integers(0, 2**35 - 1),
    cut=st.integers(0, 20),
)
def test_no_fields_raise_anything_but_invalid(
    extra: list[tuple[str, list[int]]], without: str, timestamp: int, cut: int
) -> None:
    draft = Draft(extra=extra, without=without, timestamp=timestamp)
    words = draft.words()[: -cut or None]
    decoded_or_refused(bech32("lnbcrt", [*words, *sign("lnbcrt", words)]))


@given(st.text(max_size=60), st.integers(1, 2**53 - 1), st.integers(0, 2**40), st.binary(min_size=32, max_size=32))
def test_a_written_invoice_is_read(description: str, amount_msat: int, expiry_s: int, payment_hash: bytes) -> None:
    draft = Draft(
        amount=f"{amount_msat}0p",
        description=description.encode(),
        expiry_s=min(expiry_s, 10**9),
        payment_hash=payment_hash,
    )
    invoice = bolt11.decode(draft.text(), network="regtest")
    assert (invoice.description, invoice.amount_msat) == (description, amount_msat)
    assert (invoice.expires_at - invoice.created_at).total_seconds() == draft.expiry_s
    assert invoice.payment_hash == payment_hash.hex()


@pytest.mark.parametrize("text", [COFFEE_BEANS, WITH_FIELDS_TO_IGNORE, COFFEE_BEANS.upper()])
def test_the_hash_alone_is_the_one_that_the_whole_invoice_has(text: str) -> None:
    assert bolt11.find_payment_hash(text) == SPEC_HASH


@given(st.text(max_size=400) | st.text("lnbcrt1" + CHARSET, max_size=400).map("lnbcrt1".__add__))
def test_a_text_without_a_hash_has_none(text: str) -> None:
    found = bolt11.find_payment_hash(text)
    assert found is None or len(found) == 64
