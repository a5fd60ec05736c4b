"""The row of a withdrawal that was just asked for, from the request and the terms."""

from engine.bank.withdrawal.withdrawal import NewWithdrawal
from engine.contracts import workflow_ids
from engine.contracts.withdrawal import WithdrawalRequest
from engine.domain.fee import Charge
from engine.domain.ids import WalletId
from engine.domain.withdrawal.rules import WithdrawalRules
from engine.domain.withdrawal.target import Target
from engine.domain.withdrawal.terms import Terms, Wish


def new_row(
    asked: WithdrawalRequest,
    target: Target,
    wish: Wish,
    charge: Charge,
    terms: Terms,
    *,
    rules: WithdrawalRules,
    payee: WalletId | None = None,
) -> NewWithdrawal:
    """Queued, and above an amount only once an operator has approved it. With a payee: paid in the books."""
    return NewWithdrawal(
        id=asked.withdrawal_id,
        held_msat=terms.held_msat,
        service_fee_msat=terms.service_fee_msat,
        fee_version=charge.version,
        fee_level=charge.level,
        workflow_id=workflow_ids.withdrawal(asked.account_id, asked.idempotency_key),
        memo=asked.memo,
        account_id=asked.account_id,
        wallet_id=asked.wallet_id,
        address=target.address,
        script=target.script,
        amount_sat=wish.amount_sat,
        fee_from="amount" if wish.takes_fee_from_amount else "balance",
        send_all=wish.balance_msat is not None,
        speed=asked.speed,
        alone=asked.alone,
        unlinked=asked.unlinked,
        max_fee_sat=terms.max_fee_sat,
        external_id=asked.external_id,
        needs_approval=payee is None and wish.amount_sat > rules.approval_above_sat,
        approval_hours=rules.approval_hours,
        payee_wallet_id=payee,
        paid_sat=terms.paid_sat,
    )
