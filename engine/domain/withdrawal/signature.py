"""What the signatures of a transaction fix. One that leaves an input or an output open lets others change it.

Known are the forms in which the wallet's own coins are spent: by a key's hash, with or without a witness, and by a
taproot key. Whether a signature holds, only a node can tell.
"""

from engine.domain.withdrawal.transaction import Input

_ALL = 1
"""SIGHASH_ALL: every input and every output. SIGHASH_DEFAULT of taproot means the same, and is not written."""
_DER = 0x30
_DER_BYTES = range(9, 74)
_SCHNORR_BYTES = 64
_COMPRESSED, _UNCOMPRESSED = 33, 65


def fixes_all(spent: Input) -> bool:
    """Whether the proof of this input is a signature over all inputs and all outputs. False for any other form."""
    match spent.witness:
        case ():
            return _by_hash(spent.script_sig)
        case (signature,):
            return signature[_SCHNORR_BYTES:] in (b"", bytes([_ALL])) and len(signature) >= _SCHNORR_BYTES
        case (signature, key):
            return len(key) == _COMPRESSED and _is_over_all(signature)
        case _:
            return False


def _by_hash(script: bytes) -> bool:
    """Two pushes: the signature, and the key."""
    size = script[0] if script else 0
    signature, rest = script[1 : 1 + size], script[1 + size :]
    key_size = rest[0] if rest else 0
    is_key = key_size in (_COMPRESSED, _UNCOMPRESSED) and len(rest) == 1 + key_size
    return is_key and _is_over_all(signature)


def _is_over_all(signature: bytes) -> bool:
    return len(signature) in _DER_BYTES and signature[0] == _DER and signature[-1] == _ALL
