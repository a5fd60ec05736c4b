"""Whatever stands in a payment URI is read again as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.bip21 import qr_pieces, read_uri, write_uri
from engine.domain.destination import OnChain, read_destination
from engine.domain.money import MAX_AMOUNT_MSAT, Sat, sat_to_msat
from tests.helpers.address.pool import address_of

pytestmark = pytest.mark.property

NUMBERS = st.integers(0, 2**160 - 1)
AMOUNTS = st.none() | st.integers(1, MAX_AMOUNT_MSAT // 1000).map(Sat)
LABELS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(NUMBERS, AMOUNTS, LABELS, st.sampled_from([None, "lnbcrt1abc"]))
def test_a_uri_is_read_as_it_was_written(
    number: int, amount_sat: Sat | None, label: str | None, lightning: str | None
) -> None:
    address = address_of(number, taproot=number % 2 == 1)
    uri = write_uri(address, amount_sat=amount_sat, label=label, lightning=lightning)
    for text in (uri, "".join(qr_pieces(uri))):
        found = read_uri(text)
        assert (found.address.lower(), found.amount_sat, found.label) == (address, amount_sat, label)
        assert (found.lightning or "").lower() == (lightning or "")


@given(NUMBERS, AMOUNTS, LABELS)
def test_a_uri_without_lightning_is_its_address_with_its_amount(
    number: int, amount_sat: Sat | None, label: str | None
) -> None:
    address = address_of(number)
    found = read_destination(write_uri(address, amount_sat=amount_sat, label=label))
    assert isinstance(found, OnChain)
    assert found.address.text == address
    assert found.amount_msat == (None if amount_sat is None else sat_to_msat(amount_sat))
