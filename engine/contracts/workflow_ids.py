"""Workflow ids name what a run is about, so that there are never two runs for the same thing. Add, never rename."""

import hashlib
from collections.abc import Sequence

from engine.domain.deposit import Outpoint
from engine.domain.ids import (
    AccountId,
    CaseId,
    CorrectionId,
    DepositId,
    NodeName,
    PaymentHash,
    PaymentId,
    PayoutId,
    key_digest,
)
from engine.domain.withdrawal.withdrawal import Speed

RECONCILIATION = "reconciliation"
"""The id of the schedule, and of the runs that it starts."""

JANITOR = "janitor"
"""The id of the schedule, and of the runs that it starts."""

RECONCILIATION_NOW = "reconciliation-asked-now"
"""The id of a run that somebody wants now: one at a time, whoever asks."""


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
    """`way` is a digest of payee, hints and amount: requests for the same route find the same run."""
    return f"quote-{way}"


def receive(payment_hash: PaymentHash) -> str:
    return f"receive-{payment_hash}"


def receipts(node: NodeName, payment_hashes: Sequence[PaymentHash]) -> str:
    """Made of all receipts of the page: the same page has the same id, and a page with more receipts has another."""
    return f"receipts-{node}-{hashlib.sha256(''.join(payment_hashes).encode()).hexdigest()[:24]}"


def pump(node: NodeName) -> str:
    return f"pump-{node}"


def chain_pump(wallet: str) -> str:
    return f"pump-{wallet}"


def deposit(outpoint: Outpoint) -> str:
    """By the outpoint at first sight. A replacement keeps the id."""
    return f"deposit-{outpoint.txid}-{outpoint.vout}"


def deposits(height: int, deposits: Sequence[DepositId]) -> str:
    """The same page at the same tip has the same id."""
    return f"deposits-{height}-{hashlib.sha256(''.join(deposits).encode()).hexdigest()[:24]}"


def withdrawal(account_id: AccountId, idempotency_key: str) -> str:
    return f"withdrawal-{account_id}-{key_digest(account_id, idempotency_key)}"


def batcher(wallet: str, speed: Speed) -> str:
    return f"batcher-{wallet}-{speed}"


def payout(payout_id: PayoutId) -> str:
    return f"payout-{payout_id.partition('_')[2]}"


def adopt_node(node: NodeName) -> str:
    return f"adopt-{node}"


def invoice_sweep(node: NodeName) -> str:
    return f"invoice-sweep-{node}"


def asked_reconciliation(asker: AccountId, idempotency_key: str | None) -> str:
    """Without a key, all who ask while such a run is under way share one id, and find that run."""
    if not idempotency_key:
        return RECONCILIATION_NOW
    return f"reconciliation-asked-{key_digest(asker, idempotency_key)}"


def case(case: CaseId) -> str:
    return f"case-{case}"


def correction(correction: CorrectionId) -> str:
    return f"correction-{correction}"
