"""The secrets of a withdraw link: its URL, and the `k1` of each claim. Both are sealed and neither is stored.

URL    /lnurlw/<id>_<seal>    the seal makes the link a secret; the database and the workflows have the id alone
k1     16 random bytes, and a seal over them: nothing is kept for those who open the link and claim nothing
"""

import hmac
import re
import secrets

from engine.domain.errors import no_such
from engine.domain.ids import WithdrawLinkId
from engine.settings import ApiSettings

_NONCE_BYTES = _SEAL_BYTES = 16
_K1 = re.compile(r"[0-9a-f]{64}")


def link_url(settings: ApiSettings, link_id: WithdrawLinkId) -> str:
    """The URL of the link. It is a secret: a claim needs nothing else."""
    return f"{settings.public_url}/lnurlw/{_sealed_id(settings, link_id)}"


def open_sealed_id(settings: ApiSettings, sealed_id: str) -> WithdrawLinkId:
    """The id in this part of the URL. Raises NotFound where the seal is wrong, as where there is no such link."""
    link_id = WithdrawLinkId(sealed_id.rpartition("_")[0])
    if not hmac.compare_digest(sealed_id.encode(), _sealed_id(settings, link_id).encode()):
        raise no_such("withdraw link")
    return link_id


def new_k1(settings: ApiSettings, link_id: WithdrawLinkId) -> str:
    """A `k1` for one claim of this link."""
    return _k1(settings, link_id, secrets.token_bytes(_NONCE_BYTES))


def is_k1_of(settings: ApiSettings, link_id: WithdrawLinkId, k1: str) -> bool:
    """Whether this is a `k1` that was given out for this link."""
    if not _K1.fullmatch(k1):
        return False
    return hmac.compare_digest(k1, _k1(settings, link_id, bytes.fromhex(k1)[:_NONCE_BYTES]))


def _sealed_id(settings: ApiSettings, link_id: WithdrawLinkId) -> str:
    seal = _seal(settings, f"withdraw link\n{link_id}")
    return f"{link_id}_{seal.hex()}"


def _k1(settings: ApiSettings, link_id: WithdrawLinkId, nonce: bytes) -> str:
    return (nonce + _seal(settings, f"withdraw claim\n{link_id}\n{nonce.hex()}")).hex()


def _seal(settings: ApiSettings, text: str) -> bytes:
    secret = bytes.fromhex(settings.preimage_secret.get_secret_value())
    return hmac.digest(secret, text.encode(), "sha256")[:_SEAL_BYTES]
