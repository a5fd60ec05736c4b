"""How the workflow of each kind of row is started again."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter
from temporalio.client import Client

from engine.bank import payment, reconciliation
from engine.bank.janitor import (
    ACCEPTED,
    CASES,
    CORRECTIONS,
    DEPOSITS,
    PAYMENTS,
    PAYOUTS,
    RUNS,
    WITHDRAWALS,
    Shelf,
)
from engine.contracts import batch, correction, deposit, payout, withdrawal
from engine.contracts.payment import PaymentRequest, payment_start
from engine.contracts.reconciliation import OpenCase, RunStatus, case_start
from engine.contracts.workflow_start import WorkflowStart, start_workflow
from engine.domain.ids import PaymentId
from engine.ledger.database import Pool, borrowed, transaction

CALL_LIMIT = timedelta(seconds=10)
"""How long Temporal may take to answer one call."""

_PAYMENT, _BATCH = TypeAdapter(PaymentRequest), TypeAdapter(batch.BatchRequest)
_PROPOSAL, _CASE = TypeAdapter(correction.Proposal), TypeAdapter(OpenCase)
_DEPOSIT = TypeAdapter(deposit.LeftAlone)
_WITHDRAWAL, _PAYOUT = TypeAdapter(withdrawal.WithdrawalRequest), TypeAdapter(payout.PayoutRef)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of row, and the function that starts the workflow of one."""

    shelf: Shelf
    begin: Callable[[Client, Pool, Mapping[str, Any]], Awaitable[None]]


async def _begin_payment(client: Client, pool: Pool, facts: Mapping[str, Any]) -> None:
    """The payment's money is held. A lane may have opened it; from now on it waits for this workflow."""
    asked = _PAYMENT.validate_python(
        {
            "payment_id": facts["id"],
            "account_id": facts["account_id"],
            "wallet_id": facts["wallet_id"],
            "idempotency_key": facts["key"],
            "body_hash": facts["body_hash"].hex(),
            "destination": facts["destination"],
            "bolt11": facts["bolt11"],
            "payment_hash": facts["payment_hash"],
            "amount_in_invoice": facts["amount_in_invoice"],
            "amount_msat": facts["amount_msat"],
            "max_fee_msat": facts["routing_cap_msat"],
            "memo": facts["memo"],
            "external_id": facts["external_id"],
            "payee_node": facts["destination"] if facts["bolt11"] is None else None,
        }
    )
    start = payment_start(asked)
    await _begin(client, start)
    async with borrowed(pool) as conn:
        await payment.hand_over(conn, PaymentId(facts["id"]), start.id)


async def _begin_accepted(client: Client, _pool: Pool, facts: Mapping[str, Any]) -> None:
    if facts["kind"] == "payment":
        await _begin(client, payment_start(_PAYMENT.validate_python(facts["request"])))
    else:
        await _begin(client, batch.batch_start(_BATCH.validate_python(facts["request"])))


async def _begin_correction(client: Client, _pool: Pool, facts: Mapping[str, Any]) -> None:
    """The key is left empty: the audit trail already names the proposer and the key."""
    proposal = _PROPOSAL.validate_python(
        {
            "correction": facts["id"],
            "kind": facts["kind"],
            "debit": facts["debit"],
            "credit": facts["credit"],
            "amount_msat": facts["amount_msat"],
            "reason": facts["reason"],
            "operator": facts["proposed_by"],
            "key_id": "",
            "idempotency_key": facts["key"],
            "body_hash": facts["body_hash"].hex(),
            "case": facts["case_id"],
            "reference": facts["reference"],
            "expires_at": facts["expires_at"],
        }
    )
    await _begin(client, correction.correction_start(proposal))


async def _begin_case(client: Client, _pool: Pool, facts: Mapping[str, Any]) -> None:
    case = _CASE.validate_python({"case": facts["id"], **_without_id(facts)})
    await _begin(client, case_start(case))


async def _begin_deposit(client: Client, _pool: Pool, facts: Mapping[str, Any]) -> None:
    await _begin(
        client, deposit.deposit_again(_DEPOSIT.validate_python({"deposit": facts["id"], **_without_id(facts)}))
    )


async def _begin_withdrawal(client: Client, _pool: Pool, facts: Mapping[str, Any]) -> None:
    """It was opened, so its cap and its row are there: what the request says of the estimate does not count again."""
    asked = _WITHDRAWAL.validate_python({**_without_id(facts), "body_hash": facts["body_hash"].hex()})
    await _begin(client, withdrawal.withdrawal_start(asked))


async def _begin_payout(client: Client, _pool: Pool, facts: Mapping[str, Any]) -> None:
    await _begin(client, payout.payout_start(_PAYOUT.validate_python({"payout_id": facts["id"], **_without_id(facts)})))


async def _end_run(_client: Client, pool: Pool, facts: Mapping[str, Any]) -> None:
    """End a lost run as incomplete, without findings. Another run comes within the hour."""
    async with transaction(pool) as conn:
        nothing: dict[str, Any] = {"accounts": [], "findings": []}
        await reconciliation.finish_in_tx(conn, facts["id"], status=RunStatus.INCOMPLETE, report=nothing)


KINDS: Mapping[str, Kind] = {
    "payments": Kind(PAYMENTS, _begin_payment),
    "accepted": Kind(ACCEPTED, _begin_accepted),
    "corrections": Kind(CORRECTIONS, _begin_correction),
    "cases": Kind(CASES, _begin_case),
    "runs": Kind(RUNS, _end_run),
    "deposits": Kind(DEPOSITS, _begin_deposit),
    "withdrawals": Kind(WITHDRAWALS, _begin_withdrawal),
    "payouts": Kind(PAYOUTS, _begin_payout),
}
"""Every kind of row that `engine/contracts/janitor.py` names."""


def _without_id(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: facts[name] for name in facts if name != "id"}


async def _begin(client: Client, start: WorkflowStart[Any]) -> None:
    """Start the workflow even if an earlier run has ended: the row says that it is not done."""
    await start_workflow(client, start.again(), call_limit=CALL_LIMIT)
