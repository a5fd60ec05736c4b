"""Approve or reject a decision about a deposit: the use cases, for any door.

Two operators decide (`two_operators.py`). The approval is carried out by the deposit's own workflow, which is started
again if it has ended.
"""

from functools import partial

from api.service import two_operators
from api.service.auth import Caller, still_may_in_tx
from api.service.deposit_decision.answer import DepositDecisionOut, read
from api.service.resources import Resources
from api.service.role import MAY
from engine.bank.account.account import payee_closed
from engine.bank.audit import record_in_tx
from engine.bank.chain.deposit_decision import DecidableDeposit, find_decidable, find_row_in_tx, mark_in_tx
from engine.contracts.deposit import DepositApproval, deposit_start
from engine.domain.errors import Refused, no_such
from engine.domain.forced_end import DecisionStatus
from engine.domain.ids import DepositDecisionId, DepositId
from engine.ledger.database import Connection, transaction
from workflows.deposit import DepositWorkflow

_LIMIT_S = 15


async def approve_deposit_decision(
    resources: Resources, caller: Caller, decision_id: str, *, note: str = ""
) -> DepositDecisionOut:
    """The decision, once it is carried out.

    Raises as `two_operators.approve`, and Refused: `deposit_not_waiting` when the deposit has changed meanwhile,
    `payee_closed`.
    """
    caller.require_role(*MAY["decide about deposits"])
    read_it = partial(read, decision_id=decision_id)
    return await two_operators.approve(resources, caller, read_it, partial(_carry_out, resources, caller, note))


async def reject_deposit_decision(
    resources: Resources, caller: Caller, decision_id: str, *, reason: str
) -> DepositDecisionOut:
    """The decision, rejected or taken back. Raises as `two_operators.reject`."""
    caller.require_role(*MAY["decide about deposits"])
    read_it = partial(read, decision_id=decision_id)
    return await two_operators.reject(resources, caller, read_it, partial(_mark_rejected, resources, caller, reason))


async def _carry_out(resources: Resources, caller: Caller, note: str, known: DepositDecisionOut) -> None:
    async with resources.reading() as conn:
        deposit = await _get_deposit(conn, known.deposit_id)
    start = deposit_start(
        deposit.id, deposit.workflow_id, txid=deposit.txid, amount_sat=deposit.amount_sat, account=deposit.account_id
    )
    await two_operators.tell(
        resources,
        start.again(),
        DepositWorkflow.decide,
        DepositApproval(decision=DepositDecisionId(known.id), operator=caller.owner, key_id=caller.key_id, note=note),
        limit_s=_LIMIT_S,
        refusals={
            "decision_made": lambda _: known.decided(),
            "payee_closed": lambda _: payee_closed(),
            "deposit_not_waiting": lambda message: Refused(message, code="deposit_not_waiting"),
        },
    )


async def _mark_rejected(resources: Resources, caller: Caller, reason: str, known: DepositDecisionOut) -> None:
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        row = await find_row_in_tx(conn, DepositDecisionId(known.id))
        if row is None:
            raise no_such("decision about a deposit")
        if row.status is not DecisionStatus.PROPOSED:
            return
        await mark_in_tx(conn, row.id, DecisionStatus.REJECTED, operator=caller.owner, note=reason)
        account = (await _get_deposit(conn, row.deposit_id)).account_id
        await record_in_tx(conn, caller.act("deposit_decision.reject", account_id=account, subject=row.id, note=reason))


async def _get_deposit(conn: Connection, deposit_id: str) -> DecidableDeposit:
    deposit = await find_decidable(conn, DepositId(deposit_id))
    if deposit is None:
        raise no_such("deposit")
    return deposit
