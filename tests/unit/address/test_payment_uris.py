"""Payment URIs: exact amounts, both ways in one text, and what is refused."""

from typing import Any

import pytest
import segno

from engine.domain.bip21 import btc_text, qr_pieces, read_uri, write_uri
from engine.domain.errors import Invalid
from engine.domain.money import Sat
from tests.helpers.address.pool import address_of

pytestmark = pytest.mark.unit

ADDRESS = address_of(1)


@pytest.mark.parametrize(
    ("amount_sat", "text"),
    [
        (1, "0.00000001"),
        (100, "0.000001"),
        (10**8, "1"),
        (150_000_000, "1.5"),
        (2_099_999_997_690_000, "20999999.9769"),
    ],
)
def test_amounts_are_exact(amount_sat: int, text: str) -> None:
    assert btc_text(Sat(amount_sat)) == text
    assert write_uri(ADDRESS, amount_sat=Sat(amount_sat)) == f"bitcoin:{ADDRESS}?amount={text}"


@pytest.mark.parametrize(
    "amount", ["", "0", "0.0", "1e3", "-1", "0.000000001", ".5", "1.", "1,5", "0x1", "99999999", "١", "1 "]
)
def test_an_amount_that_is_none_is_refused(amount: str) -> None:
    uri = read_uri(f"bitcoin:{ADDRESS}?amount={amount}")
    with pytest.raises(Invalid, match="no amount") as refused:
        assert uri.amount_sat
    assert refused.value.code == "invalid_destination"


def test_a_uri_without_parameters_is_the_address_alone() -> None:
    assert write_uri(ADDRESS) == f"bitcoin:{ADDRESS}"
    found = read_uri(f"BITCOIN:{ADDRESS.upper()}")
    assert (found.address, found.amount_sat, found.lightning) == (ADDRESS.upper(), None, None)


def test_names_are_read_in_any_case_and_unknown_ones_are_ignored() -> None:
    found = read_uri(f"bitcoin:{ADDRESS}?AMOUNT=1&Label=caf%C3%A9%&x=y&pj=z&LIGHTNING=LNBC1")
    assert (found.amount_sat, found.label, found.lightning) == (10**8, "café%", "LNBC1")


@pytest.mark.parametrize("query", ["req-x=1", "REQ-y", "amount=1&amount=1", "lightning=a&LIGHTNING=b"])
def test_a_parameter_that_nobody_may_guess_is_refused(query: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_uri(f"bitcoin:{ADDRESS}?{query}")
    assert refused.value.code == "invalid_destination"


def test_a_qr_code_is_smaller_in_pieces_and_means_the_same() -> None:
    uri = write_uri(ADDRESS, amount_sat=Sat(5_000), label="Ann & co", lightning="lnbcrt50u1" + "q" * 300)
    pieces = qr_pieces(uri)
    whole = read_uri("".join(pieces))
    assert (whole.address.lower(), whole.amount_sat, whole.label) == (ADDRESS, 5_000, "Ann & co")
    assert (whole.lightning or "").lower() == "lnbcrt50u1" + "q" * 300
    segments: Any = [(piece, None) for piece in pieces]
    whole_code, code = (segno.make(each, error="l", micro=False) for each in (uri, segments))
    assert int(code.version) < int(whole_code.version)
    assert qr_pieces(f"bitcoin:{ADDRESS}") == (f"BITCOIN:{ADDRESS.upper()}",)
