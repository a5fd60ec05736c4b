"""Which proofs of an input fix the whole transaction."""

import pytest

from engine.domain.deposit import Outpoint
from engine.domain.ids import Txid
from engine.domain.withdrawal.signature import fixes_all
from engine.domain.withdrawal.transaction import REPLACEABLE, Input

pytestmark = pytest.mark.unit

DER = bytes([0x30]) + bytes(70)
KEY, SCHNORR = bytes(33), bytes(64)
ALL, NONE, ALL_BUT_INPUTS = b"\x01", b"\x02", b"\x81"
REDEEM = bytes([22]) + bytes(22)


def spent(*witness: bytes, script_sig: bytes = b"") -> Input:
    return Input(
        outpoint=Outpoint(txid=Txid("ab" * 32), vout=0), sequence=REPLACEABLE, script_sig=script_sig, witness=witness
    )


def pushed(*parts: bytes) -> bytes:
    return b"".join(bytes([len(each)]) + each for each in parts)


@pytest.mark.parametrize(
    "proof",
    [
        spent(DER + ALL, KEY),
        spent(DER + ALL, KEY, script_sig=REDEEM),
        spent(SCHNORR),
        spent(SCHNORR + ALL),
        spent(script_sig=pushed(DER + ALL, KEY)),
        spent(script_sig=pushed(DER + ALL, bytes(65))),
    ],
)
def test_a_signature_over_all_is_taken(proof: Input) -> None:
    assert fixes_all(proof)


@pytest.mark.parametrize(
    "proof",
    [
        spent(),
        *(spent(DER + each, KEY) for each in (NONE, ALL_BUT_INPUTS, b"\x03", b"\x00", b"")),
        *(spent(SCHNORR + each) for each in (NONE, ALL_BUT_INPUTS, b"\x00", ALL + ALL)),
        *(spent(script_sig=pushed(DER + each, KEY)) for each in (NONE, ALL_BUT_INPUTS)),
        spent(SCHNORR[:-1]),
        spent(ALL),
        spent(b"", KEY),
        spent(DER + ALL, SCHNORR),
        spent(DER + ALL, KEY, KEY),
        spent(SCHNORR, b"\x50annex"),
        spent(script_sig=pushed(DER + ALL)),
        spent(script_sig=pushed(DER + ALL, KEY) + b"\x00"),
        spent(script_sig=b"\x48"),
        spent(script_sig=REDEEM),
    ],
)
def test_anything_else_is_not(proof: Input) -> None:
    assert not fixes_all(proof)
