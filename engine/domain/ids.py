"""Names of things. Opaque to the outside; inside, each kind has its own type and a readable prefix.

An id that belongs to a request with an idempotency key is computed from account and key, so that a repeat names the
same thing before anything has been stored. All others are random.
"""

import hashlib
import secrets
from typing import NewType

AccountId = NewType("AccountId", str)
WalletId = NewType("WalletId", str)
ApiKeyId = NewType("ApiKeyId", str)
PaymentId = NewType("PaymentId", str)
BatchId = NewType("BatchId", str)
InvoiceId = NewType("InvoiceId", str)
PaymentHash = NewType("PaymentHash", str)
"""64 lower-case hex digits."""
NodeName = NewType("NodeName", str)
ReconciliationId = NewType("ReconciliationId", str)
CaseId = NewType("CaseId", str)
CorrectionId = NewType("CorrectionId", str)
DecisionId = NewType("DecisionId", str)
DepositDecisionId = NewType("DepositDecisionId", str)
WithdrawLinkId = NewType("WithdrawLinkId", str)
DepositId = NewType("DepositId", str)
WithdrawalId = NewType("WithdrawalId", str)
PayoutId = NewType("PayoutId", str)
WithdrawalDecisionId = NewType("WithdrawalDecisionId", str)
ReceivableId = NewType("ReceivableId", str)
Txid = NewType("Txid", str)
"""64 lower-case hex digits, as nodes and explorers show it."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u


def _base32(number: int, length: int) -> str:
    return "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(length)))


def new_id(prefix: str) -> str:
    """A fresh id with 125 random bits. Not for workflow code: it is not repeatable."""
    return f"{prefix}_{_base32(secrets.randbits(125), 25)}"


def key_digest(account_id: AccountId, idempotency_key: str) -> str:
    """125 bits of SHA-256 over account and key: the part that ids and workflow ids made from a key share."""
    digest = hashlib.sha256(f"{account_id}\n{idempotency_key}".encode()).digest()
    return _base32(int.from_bytes(digest, "big") >> 131, 25)


def id_for_key(prefix: str, account_id: AccountId, idempotency_key: str) -> str:
    """The id of what a request with this key makes; the same for every repeat."""
    return f"{prefix}_{key_digest(account_id, idempotency_key)}"
