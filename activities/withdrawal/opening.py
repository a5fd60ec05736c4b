"""Opens a withdrawal in its caller's transaction, which has claimed its key.

An address of another user of ours is paid in the books at once. Everything else is held: amount and fee cap, or the
amount with the fees in it. A refusal is raised, and rolls everything back.
"""

from activities.refusals import about_accounts
from activities.withdrawal.bill import Bills
from activities.withdrawal.hold import Hold
from activities.withdrawal.in_books import InBooks
from engine.bank.withdrawal.destination import find_our_payee
from engine.bank.withdrawal.rules import read_withdrawal_rules
from engine.contracts.withdrawal import WithdrawalRequest
from engine.domain.errors import Invalid, Refused
from engine.domain.withdrawal.target import read_target
from engine.domain.withdrawal.terms import require_bounds
from engine.ledger.chart import Chart
from engine.ledger.database import Connection


class Opening:
    """One per process."""

    def __init__(self, ids: Chart) -> None:
        self._bills = Bills()
        self._hold = Hold(ids, self._bills)
        self._in_books = InBooks(ids, self._bills)

    async def open_in_tx(self, conn: Connection, asked: WithdrawalRequest) -> None:
        """Write the row, and hold or move the money. Raises Refused and Invalid, with the codes of the contract."""
        require_bounds(amount_sat=asked.amount_sat, max_fee_sat=asked.max_fee_sat, fee_cap_sat=asked.fee_cap_sat)
        target = read_target(asked.address, asked.script)
        payer = await self._bills.get_payer(conn, asked)
        ours = await find_our_payee(conn, target.address)
        rules = await read_withdrawal_rules(conn)
        try:
            if ours is None:
                await self._hold.hold_in_tx(conn, asked, target, payer, rules)
            elif ours.wallet_id == asked.wallet_id:
                raise Invalid("This address belongs to the wallet that would pay it.", code="self_payment")
            else:
                ours.payee.require_open()
                await self._in_books.pay_in_tx(conn, asked, target, payer, ours, rules)
        except Refused as refused:
            raise about_accounts(refused, payer) from refused
