"""Workflow ids: what a run is about, so that two runs for the same thing cannot be. Add, never rename."""

import hashlib
from collections.abc import Sequence

from engine.domain.ids import AccountId, CaseId, CorrectionId, NodeName, PaymentHash, PaymentId, key_digest

RECONCILIATION = "reconciliation"
"""The id of the schedule, and of the runs that it starts."""

JANITOR = "janitor"
"""The id of the schedule, and of the runs that it starts."""

RECONCILIATION_NOW = "reconciliation-asked-now"
"""The id of a run that is wanted at once, by whomever: one at a time."""


def payment(account_id: AccountId, idempotency_key: str) -> str:
    return f"payment-{account_id}-{key_digest(account_id, idempotency_key)}"


def payment_of(account_id: AccountId, payment_id: PaymentId) -> str:
    """As `payment`: the id of a payment ends with the digest of its key."""
    return f"payment-{account_id}-{payment_id.partition('_')[2]}"


def lane(lane: str) -> str:
    return lane.replace("_", "-", 1)


def batch(account_id: AccountId, idempotency_key: str) -> str:
    return f"batch-{account_id}-{key_digest(account_id, idempotency_key)}"


def quote(way: str) -> str:
    """`way` names payee, hints and amount: who asks for the same finds the same run."""
    return f"quote-{way}"


def receive(payment_hash: PaymentHash) -> str:
    return f"receive-{payment_hash}"


def receipts(node: NodeName, payment_hashes: Sequence[PaymentHash]) -> str:
    """Made of all that the page carries: the same page has the same id, and one that holds more has another."""
    return f"receipts-{node}-{hashlib.sha256(''.join(payment_hashes).encode()).hexdigest()[:24]}"


def pump(node: NodeName) -> str:
    return f"pump-{node}"


def adopt_node(node: NodeName) -> str:
    return f"adopt-{node}"


def invoice_sweep(node: NodeName) -> str:
    return f"invoice-sweep-{node}"


def asked_reconciliation(asker: AccountId, idempotency_key: str | None) -> str:
    """Without a key, whoever asks while such a run is under way gets that one."""
    if not idempotency_key:
        return RECONCILIATION_NOW
    return f"reconciliation-asked-{key_digest(asker, idempotency_key)}"


def case(case: CaseId) -> str:
    return f"case-{case}"


def correction(correction: CorrectionId) -> str:
    return f"correction-{correction}"
