"""The texts of LNURL: how an LNURL or a lightning address is written, and the metadata that it answers with.

    lnurl1…        a URL in bech32 (LUD-01), in lower or in upper case
    name@domain    a lightning address: https://<domain>/.well-known/lnurlp/<name> (LUD-16)

Pure text: the requests to payees outside are in engine/clients/lnurl/payee.py.
"""

import hashlib
import json
import re
from typing import cast

from engine.domain import bech32
from engine.domain.errors import Invalid
from engine.domain.outside import lines

MAX_URL_LENGTH = 2_000
COMMENT_LENGTH = 150
"""Characters of a payer's comment (LUD-12): in UTF-8 they fit into an invoice's memo."""

_DESCRIPTION_BYTES = 4_096
_PREFIX = "lnurl"
_NAME = re.compile(r"[a-z0-9._+-]{1,64}")
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}(:|$)){_LABEL}(\.{_LABEL})*(:[0-9]{{1,5}})?")


def read_lnurl(text: str) -> str:
    """The URL in `lnurl1…`. Raises Invalid: `invalid_destination`."""
    try:
        prefix, words = bech32.read(text)
        url = bech32.to_bytes(words).decode("ascii")
    except ValueError as error:
        reason = "it is no URL" if isinstance(error, UnicodeDecodeError) else str(error)
        raise _invalid(f"This is not an LNURL: {reason}.") from None
    if prefix != _PREFIX or len(url) > MAX_URL_LENGTH or not url.isprintable():
        raise _invalid("This is not an LNURL: it is no URL.")
    return url


def write_lnurl(url: str) -> str:
    """`lnurl1…`, in lower case."""
    return bech32.write(_PREFIX, bech32.to_words(url.encode("ascii")))


def read_address(text: str) -> tuple[str, str]:
    """Name and domain, in lower case; the domain may have a port. Raises Invalid: `invalid_destination`."""
    name, _, domain = text.lower().partition("@")
    if not _NAME.fullmatch(name) or not _DOMAIN.fullmatch(domain):
        raise _invalid("A lightning address is name@domain, such as bob@example.com.")
    return name, domain


def address_path(name: str) -> str:
    """The path of a lightning address at its domain."""
    return f"/.well-known/lnurlp/{name}"


def metadata_of_user(username: str, domain: str) -> str:
    """The metadata of one of our users, as the text that is served and hashed."""
    name = username.lower()
    return json.dumps([["text/plain", f"Payment to {name}"], ["text/identifier", f"{name}@{domain}"]])


def plain_text(metadata: str) -> str | None:
    """The `text/plain` of a payee's metadata, made harmless and cut; None where there is none that can be read."""
    try:
        entries: object = json.loads(metadata)
    except (ValueError, RecursionError):
        return None
    for entry in cast("list[object]", entries) if isinstance(entries, list) else []:
        match entry:
            case ["text/plain", str(text)]:
                return lines(text, _DESCRIPTION_BYTES)
            case _:
                pass
    return None


def description_hash(metadata: str) -> str:
    """What an invoice for this metadata must carry (LUD-06)."""
    return hashlib.sha256(metadata.encode()).hexdigest()


def _invalid(detail: str) -> Invalid:
    return Invalid(detail, code="invalid_destination")
