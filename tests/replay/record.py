"""Records histories for the replay tests from a running stack: `eval "$(./run env)"; python -m tests.replay.record`.

Run it on a stack that has lived through some payments: it takes, for each story, one workflow of that kind. A story
that has a file already is left alone: old histories stay. `tests.replay.withdrawals` lives through its stories itself.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from temporalio.client import Client

from engine.contracts.converter import DATA_CONVERTER

HISTORIES = Path(__file__).parent / "histories"

_ENDED_PAYMENT = 'WorkflowType = "PaymentWorkflow" AND ExecutionStatus = "Completed"'
_PAYMENT = 'WorkflowType = "PaymentWorkflow" AND MillraceStatus = '
_RECONCILIATION = 'WorkflowType = "ReconciliationWorkflow" AND MillraceStatus = '
_CORRECTION = 'WorkflowType = "CorrectionWorkflow" AND MillraceStatus = '
_DEPOSIT = 'WorkflowType = "DepositWorkflow" AND ExecutionStatus = "Completed"'
_STORIES = {
    "payment-internal": (f'{_PAYMENT} "settled" AND PaymentHash IS NULL', "open_payment"),
    "payment-settled": (f'{_PAYMENT} "settled" AND PaymentHash IS NOT NULL', "send_payment"),
    "payment-failed": (f'{_PAYMENT} "failed"', "send_payment"),
    "payment-decided": (_ENDED_PAYMENT, "carry_out_decision"),
    "payment-taken-back": (_ENDED_PAYMENT, "a-send-is-taken-back"),
    "payment-refused": (f'{_PAYMENT} "refused"', "open_payment"),
    "payment-held-by-payee": (f'{_PAYMENT} "settled" AND PaymentHash IS NOT NULL', "watch_payment"),
    "lane-mixed": ('WorkflowType = "LaneWorkflow" AND ExecutionStatus = "Completed"', "insufficient_funds"),
    "batch-settled": ('WorkflowType = "BatchWorkflow" AND MillraceStatus = "settled"', "open_batch"),
    "batch-refused": ('WorkflowType = "BatchWorkflow" AND MillraceStatus = "refused"', "open_batch"),
    "invoice-received": ('WorkflowType = "ReceiveWorkflow" AND ExecutionStatus = "Completed"', "credit_receipt"),
    "invoice-page-mixed": ('WorkflowType = "ReceiptPageWorkflow" AND ExecutionStatus = "Completed"', "left alone"),
    "invoice-sweep": ('WorkflowType = "InvoiceSweepWorkflow" AND ExecutionStatus = "Completed"', "sweep_invoices"),
    "node-adopted": ('WorkflowType = "AdoptNodeWorkflow" AND ExecutionStatus = "Completed"', "book_opening"),
    "payment-books-away": ('WorkflowType = "PaymentWorkflow" AND ExecutionStatus = "Completed"', "the books are away"),
    "payment-renewed": ('WorkflowType = "PaymentWorkflow" AND ExecutionStatus = "ContinuedAsNew"', "as-new-at"),
    "payment-went-on": ('WorkflowType = "PaymentWorkflow" AND ExecutionStatus = "Completed"', '"so_far":{"'),
    "lane-handed-over": ('WorkflowType = "LaneWorkflow" AND ExecutionStatus = "Completed"', "side-by-side"),
    "janitor-tidied": ('WorkflowType = "JanitorWorkflow" AND ExecutionStatus = "Completed"', "tidy_up"),
    "quote-probed": ('WorkflowType = "QuoteWorkflow" AND MillraceStatus = "quoted"', "probe_route"),
    "pump-running": ('WorkflowType = "LndPumpWorkflow" AND ExecutionStatus = "Running"', "pump_invoices"),
    "reconciliation-clean": (f'{_RECONCILIATION} "clean"', "compare_node"),
    "reconciliation-differs": (f'{_RECONCILIATION} "differs"', "payment_not_in_books"),
    "reconciliation-wallet": (f'{_RECONCILIATION} "clean"', "compare_chain"),
    "correction-posted": (f'{_CORRECTION} "posted"', "post_correction"),
    "correction-refused": (f'{_CORRECTION} "refused"', "post_correction"),
    "correction-rejected": (f'{_CORRECTION} "rejected"', "decide_correction"),
    "reconciliation-case-explained": ('WorkflowType = "CaseWorkflow" AND MillraceStatus = "explained"', "resolve_case"),
    "deposit-credited": (_DEPOSIT, "credited"),
    "deposit-refused-renewed": (
        'WorkflowType = "DepositWorkflow" AND ExecutionStatus = "ContinuedAsNew"',
        "as-new-at",
    ),
    "deposit-page-left-alone": (
        'WorkflowType = "DepositPageWorkflow" AND ExecutionStatus = "Completed"',
        '"left_alone":[{',
    ),
    "chain-following": ('WorkflowType = "ChainPumpWorkflow" AND ExecutionStatus = "Running"', "follow_chain"),
    "chain-other-chain": ('WorkflowType = "ChainPumpWorkflow" AND ExecutionStatus = "ContinuedAsNew"', "other_chain"),
    "deposit-decided": (_DEPOSIT, "decide_deposit"),
    "batcher-renewed": ('WorkflowType = "BatcherWorkflow" AND ExecutionStatus = "ContinuedAsNew"', "as-new-at"),
    "payout-renewed": ('WorkflowType = "PayoutWorkflow" AND ExecutionStatus = "ContinuedAsNew"', "as-new-at"),
    "withdrawal-renewed": ('WorkflowType = "WithdrawalWorkflow" AND ExecutionStatus = "ContinuedAsNew"', "as-new-at"),
    "deposit-decided-anew": (f"{_DEPOSIT} AND AmountSat < 1000", "decide_deposit"),
}
"""Per story: where to look, and the activity or signal that its history must have."""


async def main() -> None:
    """Write what is missing; say what the stack has not lived through."""
    client = await connect(os.environ)
    for story, (query, step) in _STORIES.items():
        path = HISTORIES / f"{story}.json"
        if not path.exists():
            said = await _record(client, query, step, path)
            sys.stdout.write(f"{story}: {said}\n")


async def connect(told: Mapping[str, str]) -> Client:
    """To the Temporal of the stack that has told this."""
    return await Client.connect(
        told["MILLRACE_TEMPORAL_ADDRESS"], namespace=told["MILLRACE_TEMPORAL_NAMESPACE"], data_converter=DATA_CONVERTER
    )


async def write_history(client: Client, workflow_id: str, run_id: str | None, path: Path, step: str = "") -> str | None:
    """Write the history of a run, if this step is in it; None, if it is not."""
    history = await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
    if not any(step.encode() in event.SerializeToString() for event in history.events):
        return None
    await asyncio.to_thread(path.write_text, json.dumps(json.loads(history.to_json()), indent=1) + "\n")
    return f"{len(history.events)} events of {workflow_id}"


async def _record(client: Client, query: str, step: str, path: Path) -> str:
    async for found in client.list_workflows(query, limit=50):
        if said := await write_history(client, found.id, found.run_id, path, step):
            return said
    return "not lived through here"


if __name__ == "__main__":
    asyncio.run(main())
