"""What an address is on chain: its output script, what that weighs, and below which amount no node relays it.

    kind          script                                  dust below    output    an input that spends it
    p2pkh         OP_DUP OP_HASH160 <20> … OP_CHECKSIG     546 sat       136 WU    593 WU
    p2sh          OP_HASH160 <20> OP_EQUAL                 540 sat       128 WU    364 WU, as p2sh-p2wpkh
    p2wpkh        OP_0 <20>                                294 sat       124 WU    272 WU
    p2wsh         OP_0 <32>                                330 sat       172 WU    -
    p2tr          OP_1 <32>                                330 sat       172 WU    230 WU, by its key
    later ones    OP_1 … OP_16 <2 to 40>                   by length     by length -

Weights are in weight units, four to a virtual byte (BIP 141). A later witness version is paid as it stands (BIP 350):
its rules may come to be. A taproot key that is no point of the curve can never be spent, so it is refused.
"""

from engine.domain import bech32
from engine.domain.address import read_address
from engine.domain.errors import InvariantBroken
from engine.domain.money import Sat

WITNESS_FACTOR = 4
_OP_0, _OP_1, _OP_16 = 0x00, 0x51, 0x60
_P2PKH_HEAD, _P2PKH_TAIL = bytes.fromhex("76a914"), bytes.fromhex("88ac")
_P2SH_HEAD, _P2SH_TAIL = bytes.fromhex("a914"), bytes.fromhex("87")
_P2PKH_VERSIONS = (0x00, 0x6F)
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_BYTES, _CHECKSUM_BYTES = 25, 4
_WITNESS_SCRIPT_BYTES = range(4, 43)
_KEY_BYTES = 32
_P = 2**256 - 2**32 - 977
"""The field of secp256k1."""

_AMOUNT_BYTES = 8
_OUTPOINT_AND_SEQUENCE_BYTES = 40
_DUST_RATE_SAT_VB = 3
_DUST_SPEND_BYTES, _DUST_WITNESS_SPEND_BYTES = 148, 67
"""What Bitcoin Core's GetDustThreshold assumes that spending costs."""

_SIGNATURE_BYTES, _PUBLIC_KEY_BYTES, _SCHNORR_BYTES = 72, 33, 64
"""A DER signature with its sighash byte: one with a low R, as Core's wallet grinds it, is a byte shorter."""
_KEY_WITNESS = 1 + 1 + _SIGNATURE_BYTES + 1 + _PUBLIC_KEY_BYTES
_TAPROOT_WITNESS = 1 + 1 + _SCHNORR_BYTES
_BARE_INPUT = WITNESS_FACTOR * (_OUTPOINT_AND_SEQUENCE_BYTES + 1)
_REDEEM_BYTES = 23
"""The script_sig of p2sh-p2wpkh: a push of its witness program."""


def output_script(address: str) -> bytes:
    """The script that pays the address, of whatever network. Raises ValueError with the reason, as `read_address`."""
    text = read_address(address).text
    return _base58_script(text) if text[0] in "123mn" else _segwit_script(text)


def is_witness(script: bytes) -> bool:
    """Whether it is a witness program of any version (BIP 141)."""
    if len(script) not in _WITNESS_SCRIPT_BYTES or script[1] + 2 != len(script):
        return False
    return script[0] == _OP_0 or _OP_1 <= script[0] <= _OP_16


def dust_sat(script: bytes) -> Sat:
    """The least amount that is relayed: Bitcoin Core's GetDustThreshold, at its default of 3 sat/vB."""
    spend_bytes = _DUST_WITNESS_SPEND_BYTES if is_witness(script) else _DUST_SPEND_BYTES
    return Sat(_DUST_RATE_SAT_VB * (output_weight(script) // WITNESS_FACTOR + spend_bytes))


def output_weight(script: bytes) -> int:
    """What an output with this script adds to a transaction."""
    return WITNESS_FACTOR * (_AMOUNT_BYTES + varint_bytes(len(script)) + len(script))


def input_weight(script: bytes) -> int:
    """At most what an input adds that spends an output of this script with one key.

    p2sh counts as p2sh-p2wpkh: wallets of ours have no other. In a segwit transaction a p2pkh input also has an empty
    witness. Raises InvariantBroken for what no wallet of ours can spend.
    """
    match _kind(script):
        case "p2wpkh":
            return _BARE_INPUT + _KEY_WITNESS
        case "p2tr":
            return _BARE_INPUT + _TAPROOT_WITNESS
        case "p2sh":
            return _BARE_INPUT + WITNESS_FACTOR * _REDEEM_BYTES + _KEY_WITNESS
        case "p2pkh":
            return _BARE_INPUT + WITNESS_FACTOR * (_KEY_WITNESS - 1) + 1
        case _:
            raise InvariantBroken(f"No wallet of ours can spend an output with the script {script[:50].hex()}.")


def varint_bytes(number: int) -> int:
    """How long the transaction format's CompactSize is."""
    if number < 0xFD:  # noqa: PLR2004 - the three bounds of the format
        return 1
    return 3 if number <= 0xFFFF else 5  # noqa: PLR2004


def _kind(script: bytes) -> str:
    size, head = len(script), script[:2]
    if head == bytes([_OP_0, 20]) and size == 22:  # noqa: PLR2004 - the lengths of the table above
        return "p2wpkh"
    if head == bytes([_OP_1, _KEY_BYTES]) and size == _KEY_BYTES + 2:
        return "p2tr"
    if size == 23 and script.startswith(_P2SH_HEAD) and script.endswith(_P2SH_TAIL):  # noqa: PLR2004
        return "p2sh"
    if size == 25 and script.startswith(_P2PKH_HEAD) and script.endswith(_P2PKH_TAIL):  # noqa: PLR2004
        return "p2pkh"
    return "other"


def _segwit_script(text: str) -> bytes:
    is_v0 = text.partition("1")[2].startswith(bech32.CHARSET[0])
    _, (version, *words) = bech32.read(text, modified=not is_v0)
    program = bech32.to_bytes(words)
    if version == 1 and len(program) == _KEY_BYTES and not _is_point(program):
        raise ValueError("its taproot key is no point of the curve: what it is paid would be lost")
    return bytes([_OP_0 if version == 0 else _OP_1 + version - 1, len(program)]) + program


def _base58_script(text: str) -> bytes:
    """Checksum and length were checked by `read_address`."""
    number = 0
    for character in text:
        number = number * len(_BASE58) + _BASE58.index(character)
    payload = number.to_bytes(_BASE58_BYTES, "big")[:-_CHECKSUM_BYTES]
    if payload[0] in _P2PKH_VERSIONS:
        return _P2PKH_HEAD + payload[1:] + _P2PKH_TAIL
    return _P2SH_HEAD + payload[1:] + _P2SH_TAIL


def _is_point(key: bytes) -> bool:
    """Whether some y belongs to this x (BIP 340, lift_x). Since p % 4 is 3, a square root is a power."""
    x = int.from_bytes(key, "big")
    if x >= _P:
        return False
    square = (pow(x, 3, _P) + 7) % _P
    root = pow(square, (_P + 1) // 4, _P)
    return root * root % _P == square
