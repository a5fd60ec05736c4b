"""Whatever is written is read again; whatever bytes come, they are one transaction or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.deposit import Outpoint
from engine.domain.ids import Txid
from engine.domain.money import Sat
from engine.domain.withdrawal.share import split
from engine.domain.withdrawal.transaction import Tx, parse_transaction, unsigned_transaction

pytestmark = pytest.mark.property

OUTPOINTS = st.builds(
    lambda raw, vout: Outpoint(txid=Txid(raw.hex()), vout=vout),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**32 - 1),
)
INPUTS = st.lists(OUTPOINTS, min_size=1, max_size=4, unique=True)
OUTPUTS = st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 10**12).map(Sat)), min_size=1, max_size=4)
WITNESSES = st.lists(st.binary(max_size=80), min_size=1, max_size=3)


def short(size: int) -> bytes:
    return bytes([size]) if size < 0xFD else b"\xfd" + size.to_bytes(2, "little")


@given(INPUTS, OUTPUTS, st.integers(0, 2**32 - 1), st.data())
def test_a_transaction_keeps_its_content_and_its_txid_with_signatures(
    inputs: list[Outpoint], outputs: list[tuple[bytes, Sat]], sequence: int, data: st.DataObject
) -> None:
    raw = unsigned_transaction(inputs, outputs, sequence)
    found = parse_transaction(raw)
    assert found.outpoints == tuple(inputs)
    assert list(found.outputs) == outputs
    assert {each.sequence for each in found.inputs} == {sequence}
    assert found.weight == 4 * len(raw)

    proofs = data.draw(st.lists(WITNESSES, min_size=len(inputs), max_size=len(inputs)))
    stacks = [short(len(items)) + b"".join(short(len(each)) + each for each in items) for items in proofs]
    signed = parse_transaction(raw[:4] + b"\x00\x01" + raw[4:-4] + b"".join(stacks) + raw[-4:])
    assert (signed.txid, signed.outpoints, signed.outputs) == (found.txid, found.outpoints, found.outputs)
    assert [list(each.witness) for each in signed.inputs] == proofs
    assert signed.weight == found.weight + 2 + sum(map(len, stacks))


@given(INPUTS, OUTPUTS, st.data())
def test_changed_or_cut_bytes_are_another_transaction_or_refused(
    inputs: list[Outpoint], outputs: list[tuple[bytes, Sat]], data: st.DataObject
) -> None:
    raw = unsigned_transaction(inputs, outputs)
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(ValueError, match=r"\w+"):
        parse_transaction(raw[:cut])
    changed = raw[:cut] + bytes([raw[cut] ^ data.draw(st.integers(1, 255))]) + raw[cut + 1 :]
    found = read(changed)
    assert found is None or found.txid != parse_transaction(raw).txid


@given(st.binary(max_size=300))
def test_any_bytes_are_one_transaction_or_refused(raw: bytes) -> None:
    found = read(raw)
    assert found is None or found.weight > 0


def read(raw: bytes) -> Tx | None:
    try:
        return parse_transaction(raw)
    except ValueError:
        return None


@given(st.integers(0, 10**9).map(Sat), st.lists(st.integers(1, 1_000), min_size=1, max_size=30))
def test_shares_sum_to_the_fee_and_miss_their_exact_part_by_less_than_one(total: Sat, weights: list[int]) -> None:
    parts = split(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * sum(weights) - total * weight) < sum(weights)
