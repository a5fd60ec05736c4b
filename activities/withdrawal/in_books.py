"""Pays a withdrawal to an address of another user of ours: in the books, at once and for good.

It costs our fee of a payment between users, counts as one, and needs no approval: nothing leaves the bank. The bounds
of its amount are those of any other withdrawal, so that no refusal tells whose an address is.
"""

from activities.withdrawal.bill import Bills
from engine.bank.limit import Payer
from engine.bank.withdrawal.destination import OurPayee
from engine.bank.withdrawal.new import new_row
from engine.bank.withdrawal.withdrawal import add_in_tx
from engine.contracts.withdrawal import WithdrawalRequest
from engine.domain.errors import InvariantBroken
from engine.domain.withdrawal.rules import WithdrawalRules
from engine.domain.withdrawal.target import Target
from engine.domain.withdrawal.terms import in_the_books, require_size
from engine.ledger.chart import Chart
from engine.ledger.database import Connection
from engine.ledger.postings.withdrawal import paid_in_books
from engine.ledger.store import post_new_in_tx


class InBooks:
    """One per process."""

    def __init__(self, ids: Chart, bills: Bills) -> None:
        self._ids = ids
        self._bills = bills

    async def pay_in_tx(
        self,
        conn: Connection,
        asked: WithdrawalRequest,
        target: Target,
        payer: Payer,
        ours: OurPayee,
        rules: WithdrawalRules,
    ) -> None:
        """Write the row, ended, and move the money. Raises Refused and Invalid."""
        payee = ours.payee.ledger_account_id
        wish, charge = await self._bills.read_wish(conn, asked, payer, "internal", payee=payee)
        require_size(wish.amount_sat, minimum_sat=rules.minimum_sat, dust_sat=target.dust_sat)
        terms = in_the_books(wish)
        if terms.paid_sat is None:
            raise InvariantBroken(f"{asked.withdrawal_id}: nobody knows what the payee receives")
        new = new_row(asked, target, wish, charge, terms, rules=rules, payee=ours.wallet_id)
        counts = await self._bills.count(conn, payer, "internal", new.held_msat)
        await add_in_tx(conn, new)
        posting = paid_in_books(
            await self._ids.load(conn),
            new,
            payer=payer.ledger_account_id,
            payee=payee,
            paid_sat=terms.paid_sat,
            counts=counts,
        )
        await post_new_in_tx(conn, posting)
