"""What addresses are on chain: the scripts of BIP 173 and BIP 350, and Bitcoin Core's bounds of dust."""

import pytest

from engine.domain.errors import InvariantBroken
from engine.domain.withdrawal.script import dust_sat, input_weight, is_witness, output_script, output_weight
from tests.helpers.address.pool import address_of

pytestmark = pytest.mark.unit

P2WPKH = "0014751e76e8199196d454941c45d1b3a323f1433bd6"
P2WSH = "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262"
P2TR = "512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
P2PKH = "76a914f54a5851e9372b87810a8e60cdd2e7cfd80b6e3188ac"
P2SH = "a9148f55563b9a19f321c211e9b9f38cdf686ea0784587"


@pytest.mark.parametrize(
    ("address", "script"),
    [
        ("BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", P2WPKH),
        ("tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7", P2WSH),
        (
            "bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y",
            "5128751e76e8199196d454941c45d1b3a323f1433bd6751e76e8199196d454941c45d1b3a323f1433bd6",
        ),
        ("BC1SW50QGDZ25J", "6002751e"),
        ("bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs", "5210751e76e8199196d454941c45d1b3a323"),
        (
            "tb1qqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesrxh6hy",
            "0020000000c4a5cad46221b2a187905e5266362b99d5e91c6ce24d165dab93e86433",
        ),
        (
            "tb1pqqqqp399et2xygdj5xreqhjjvcmzhxw4aywxecjdzew6hylgvsesf3hn0c",
            "5120000000c4a5cad46221b2a187905e5266362b99d5e91c6ce24d165dab93e86433",
        ),
        ("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0", P2TR),
        ("1PMycacnJaSqwwJqjawXBErnLsZ7RkXUAs", P2PKH),
        ("3EktnHQD7RiAE6uzMj2ZifT9YgRrkSgzQX", P2SH),
        ("1111111111111111111114oLvT2", f"76a914{'00' * 20}88ac"),
        ("mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", "76a914243f1394f44554f4ce3fd68649c19adc483ce92488ac"),
        ("2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc", "a9144e9f39ca4688ff102128ea4ccda34105324305b087"),
    ],
)
def test_an_address_has_the_script_of_its_vector(address: str, script: str) -> None:
    assert output_script(address).hex() == script


@pytest.mark.parametrize(
    ("script", "dust", "weight"),
    [
        (P2PKH, 546, 136),
        (P2SH, 540, 128),
        (P2WPKH, 294, 124),
        (P2WSH, 330, 172),
        (P2TR, 330, 172),
        ("6002751e", 240, 52),
    ],
)
def test_dust_and_output_weights_are_those_of_bitcoin_core(script: str, dust: int, weight: int) -> None:
    assert dust_sat(bytes.fromhex(script)) == dust
    assert output_weight(bytes.fromhex(script)) == weight


@pytest.mark.parametrize(("script", "weight"), [(P2PKH, 593), (P2SH, 364), (P2WPKH, 272), (P2TR, 230)])
def test_the_weight_of_an_input_bounds_its_signature(script: str, weight: int) -> None:
    assert input_weight(bytes.fromhex(script)) == weight


@pytest.mark.parametrize("script", [P2WSH, "6002751e", "", "00", "6a", "76a914"])
def test_a_script_that_no_wallet_of_ours_spends_has_no_input_weight(script: str) -> None:
    with pytest.raises(InvariantBroken):
        input_weight(bytes.fromhex(script))


@pytest.mark.parametrize("script", ["", "00", "0014", "0003aabbcc", f"4f14{'00' * 20}", f"6114{'00' * 20}", P2PKH])
def test_a_witness_program_is_told_from_what_looks_like_one(script: str) -> None:
    assert is_witness(bytes.fromhex(script)) == (script == "0003aabbcc")


def test_a_taproot_key_that_is_no_point_is_refused() -> None:
    for x in (1, 2, 3, 4):
        assert output_script(address_of(x, taproot=True))[2:] == x.to_bytes(32, "big")
    for x in (0, 5, 2**256 - 2**32 - 977, 2**256 - 1):
        with pytest.raises(ValueError, match="no point"):
            output_script(address_of(x, taproot=True))


@pytest.mark.parametrize(
    "text", ["", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", "lnbc1abc", "1\x00", "bc1p" + "q" * 200]
)
def test_text_that_is_no_address_has_no_script(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        output_script(text)
