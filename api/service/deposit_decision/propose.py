"""Propose what becomes of a deposit where no rule can decide: the use case, for any door. Nothing moves yet."""

from dataclasses import dataclass

from api.service.auth import Caller, still_may_in_tx
from api.service.deposit_decision.answer import DepositDecisionOut, read
from api.service.resources import Resources
from api.service.role import MAY
from engine.bank.account.account import find_payees
from engine.bank.audit import record_in_tx
from engine.bank.chain.deposit_decision import NewDepositDecision, find_decidable, propose_in_tx
from engine.domain.deposit_decision import DepositDecisionKind, check_wallet, require_waiting
from engine.domain.errors import no_such
from engine.domain.ids import DepositDecisionId, DepositId, WalletId, new_id
from engine.ledger.database import Connection, transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositDecisionOrder:
    """What is to become of the deposit, and why."""

    deposit_id: str
    kind: DepositDecisionKind
    wallet_id: WalletId | None = None
    reason: str


async def propose_deposit_decision(
    resources: Resources, caller: Caller, order: DepositDecisionOrder
) -> DepositDecisionOut:
    """Propose it. Nothing moves yet. The same proposal of the same operator again is a repeat, and gets the first.

    Raises NotFound for deposit and wallet, Invalid for a kind that does not fit `wallet_id`, Refused
    (`deposit_not_waiting`, `payee_closed`), and Conflict (`decision_open`) while another proposal for it is open.
    """
    caller.require_role(*MAY["decide about deposits"])
    check_wallet(order.kind, order.wallet_id)
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        deposit = await find_decidable(conn, DepositId(order.deposit_id))
        if deposit is None:
            raise no_such("deposit")
        require_waiting(order.kind, deposit.facts)
        await _require_open_payee(conn, order.wallet_id)
        forgives = order.kind is DepositDecisionKind.FORGIVE
        new = NewDepositDecision(
            id=DepositDecisionId(new_id("ddec")),
            deposit_id=deposit.id,
            kind=order.kind,
            wallet_id=order.wallet_id,
            receivable_id=deposit.receivable_id if forgives else None,
            amount_msat=deposit.amount_of(order.kind),
            reason=order.reason,
            proposed_by=caller.owner,
        )
        known = await propose_in_tx(conn, new)
        if known == new.id:
            said = {"deposit_id": new.deposit_id, "kind": new.kind, "wallet_id": new.wallet_id}
            act = caller.act("deposit_decision.propose", account_id=deposit.account_id, subject=known, **said)
            await record_in_tx(conn, act)
    async with resources.reading() as conn:
        return await read(conn, known)


async def _require_open_payee(conn: Connection, wallet_id: WalletId | None) -> None:
    """Raises NotFound, and Refused for the wallet of a closed account."""
    if wallet_id is None:
        return
    payee = (await find_payees(conn, [wallet_id])).get(wallet_id)
    if payee is None:
        raise no_such("wallet")
    payee.require_open()
