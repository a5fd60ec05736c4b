"""Task queues, workflow ids and search attributes: the public names of the engine. Add, never rename."""

import hashlib
from collections.abc import Sequence
from datetime import timedelta

from temporalio.common import SearchAttributeKey

from engine.domain.ids import AccountId, CaseId, CorrectionId, NodeName, PaymentHash, key_digest

PAYMENTS = "payments"
"""Workflow code and the ledger's activities: one queue, because a hop to another costs 5 to 10 ms."""

RECONCILIATION = "reconciliation"
"""The id of the schedule, and of the runs that it starts."""

JANITOR = "janitor"
"""The id of the schedule, and of the runs that it starts."""

RECONCILIATION_NOW = "reconciliation-asked-now"
"""The id of a run that is wanted at once, by whomever: one at a time."""

TASK_TIMEOUT = timedelta(seconds=5)
"""After this long without a word a workflow task goes to another worker: how long a worker's death is felt at the most.
Longer local activities renew it by themselves."""

NOT_YET = "NotYet"
"""The type of the failure of an update whose word is known and not kept yet: to be asked again."""

STATUS = SearchAttributeKey.for_keyword("MillraceStatus")
KIND = SearchAttributeKey.for_keyword("MillraceKind")
ACCOUNT = SearchAttributeKey.for_keyword("AccountId")
PAYMENT_HASH = SearchAttributeKey.for_keyword("PaymentHash")
AMOUNT_SAT = SearchAttributeKey.for_int("AmountSat")
NEEDS_OPERATOR = SearchAttributeKey.for_bool("NeedsOperator")


def lightning_queue(node: NodeName) -> str:
    """The queue of the activities that call this one LND node."""
    return f"lightning-{node}"


def payment_workflow_id(account_id: AccountId, idempotency_key: str) -> str:
    return f"payment-{account_id}-{key_digest(account_id, idempotency_key)}"


def lane_workflow_id(lane: str) -> str:
    return lane.replace("_", "-", 1)


def batch_workflow_id(account_id: AccountId, idempotency_key: str) -> str:
    return f"batch-{account_id}-{key_digest(account_id, idempotency_key)}"


def quote_workflow_id(way: str) -> str:
    """`way` names payee, hints and amount: who asks for the same finds the same run."""
    return f"quote-{way}"


def receive_workflow_id(payment_hash: PaymentHash) -> str:
    return f"receive-{payment_hash}"


def receipts_workflow_id(node: NodeName, payment_hashes: Sequence[PaymentHash]) -> str:
    """Made of all that the page carries: the same page has the same id, and one that holds more has another."""
    return f"receipts-{node}-{hashlib.sha256(''.join(payment_hashes).encode()).hexdigest()[:24]}"


def pump_workflow_id(node: NodeName) -> str:
    return f"pump-{node}"


def adopt_node_workflow_id(node: NodeName) -> str:
    return f"adopt-{node}"


def invoice_sweep_workflow_id(node: NodeName) -> str:
    return f"invoice-sweep-{node}"


def asked_reconciliation_workflow_id(asker: AccountId, idempotency_key: str | None) -> str:
    """Without a key, whoever asks while such a run is under way gets that one."""
    if not idempotency_key:
        return RECONCILIATION_NOW
    return f"reconciliation-asked-{key_digest(asker, idempotency_key)}"


def case_workflow_id(case: CaseId) -> str:
    return f"case-{case}"


def correction_workflow_id(correction: CorrectionId) -> str:
    return f"correction-{correction}"
