"""What an outside payee shows to its payer (LUD-09, LUD-10): checked before the payment, revealed afterwards.

    message   a text
    url       a text, and a link that leads to where the invoice came from
    aes       a text, and another one that only the payment's preimage decrypts

An action that breaks a rule is refused before anything is paid: otherwise the payer would not see what he pays for, or
would be led to somebody else. Texts are made harmless (engine/domain/outside.py); an unsafe link is refused. A text
that cannot be decrypted afterwards is shown as missing.
"""

from base64 import b64decode
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from engine.domain.errors import Invalid
from engine.domain.lnurl import MAX_URL_LENGTH
from engine.domain.outside import is_harmless, lines

_TEXT_LENGTH = 144
_CIPHERTEXT_LENGTH = 4096
_MAX_BYTES = 4 * _CIPHERTEXT_LENGTH
_SHOWN = {"message", "description"}
_BLOCK_BYTES = 16
_LENGTHS = {
    "message": {"message": _TEXT_LENGTH},
    "url": {"description": _TEXT_LENGTH, "url": MAX_URL_LENGTH},
    "aes": {"description": _TEXT_LENGTH, "ciphertext": _CIPHERTEXT_LENGTH, "iv": 24},
}


def read_success_action(told: object, callback: str) -> dict[str, str] | None:
    """Tag and texts, for storing with the payment; None when there is nothing to show.

    Raises Invalid (`invalid_destination`) for a tag that we do not know, as LUD-09 requires, and for unusable content.
    """
    if told is None:
        return None
    known = cast("Mapping[str, object]", told) if isinstance(told, dict) else {}
    tag = known.get("tag")
    lengths = _LENGTHS.get(tag) if isinstance(tag, str) else None
    if lengths is None:
        raise _no("it wants to show something of a kind that we do not know")
    action = {"tag": str(tag)}
    for name, length in lengths.items():
        text = known.get(name)
        if not isinstance(text, str) or len(text) > length:
            raise _no(f"the {name} that it wants to show is no text of at most {length} characters")
        action[name] = lines(text, _MAX_BYTES) if name in _SHOWN else "".join(text.split())
    if tag == "url" and not _is_of(action["url"], callback):
        raise _no("the link that it wants to show leads to somebody else")
    if tag == "aes" and (len(_bytes(action["iv"])) != _BLOCK_BYTES or not _is_whole(_bytes(action["ciphertext"]))):
        raise _no("what it wants to show is not encrypted as LUD-10 says")
    return action


def storable(action: Mapping[str, str]) -> dict[str, str] | None:
    """The action as it is stored. None for an action that an older release accepted and today's rules refuse.

    Its payment has been accepted, and money must not wait for a text: the payment is opened without it.
    """
    lengths = _LENGTHS.get(str(action.get("tag")))
    if lengths is None or set(action) != {"tag", *lengths} or not all(map(is_harmless, action.values())):
        return None
    return dict(action)


def reveal(action: Mapping[str, str], preimage: str) -> Mapping[str, str]:
    """The action as the payer sees it: the encrypted text is decrypted and becomes `message`, or is left out."""
    if action["tag"] != "aes":
        return action
    shown = {"tag": "aes", "description": action["description"]}
    cipher = Cipher(algorithms.AES256(bytes.fromhex(preimage)), modes.CBC(_bytes(action["iv"])))
    decryptor, unpadder = cipher.decryptor(), PKCS7(8 * _BLOCK_BYTES).unpadder()
    padded = decryptor.update(_bytes(action["ciphertext"])) + decryptor.finalize()
    try:
        message = (unpadder.update(padded) + unpadder.finalize()).decode()
    except ValueError:  # the payee used another key, or the content is not a text
        return shown
    return {**shown, "message": lines(message, _MAX_BYTES)}


def _is_of(url: str, callback: str) -> bool:
    """Whether the link leads to the same host and is as safe as the callback."""
    if not url.isprintable() or " " in url:  # urlsplit removes some such characters, and browsers remove others
        return False
    try:
        link, asked = urlsplit(url), urlsplit(callback)
    except ValueError:
        return False
    safe = link.scheme == "https" or (link.scheme == "http" and asked.scheme == "http")
    return safe and link.username is None and link.hostname is not None and link.hostname == asked.hostname


def _is_whole(encrypted: bytes) -> bool:
    return len(encrypted) > 0 and len(encrypted) % _BLOCK_BYTES == 0


def _bytes(text: str) -> bytes:
    try:
        return b64decode("".join(text.split()), validate=True)
    except ValueError:  # raised also for non-ASCII text
        return b""


def _no(reason: str) -> Invalid:
    return Invalid(f"This destination cannot be paid: {reason}.", code="invalid_destination")
