"""Moves a parked deposit to a wallet, because two operators have decided so. The caller has locked its row."""

from engine.bank.account.account import payee_closed
from engine.bank.chain.deposit import DepositRow, write_booked_in_tx
from engine.bank.chain.deposit_decision import DepositDecisionRow, find_owner_of
from engine.bank.chain.receivable import repay_in_tx
from engine.bank.fee_schedule import FeeBook
from engine.bank.limit import Payer, find_payer
from engine.domain.deposit import DepositStatus
from engine.domain.deposit_decision import not_waiting
from engine.domain.errors import Refused
from engine.domain.ids import AccountId, WalletId
from engine.domain.money import Msat
from engine.ledger.chart import Chart
from engine.ledger.database import Connection
from engine.ledger.postings.deposit import released
from engine.ledger.store import post_new_in_tx


class Release:
    """One per pool."""

    def __init__(self, ids: Chart) -> None:
        self._ids = ids
        self._fees = FeeBook()

    async def to_wallet_in_tx(
        self, conn: Connection, row: DepositRow, word: DepositDecisionRow, *, operator: AccountId
    ) -> tuple[AccountId, str]:
        """Credit the owner, or whom the decision names, with our fee in force now. An open receivable is repaid first.

        Returns the account and the reference of the posting. Raises Refused (`payee_closed`, `deposit_not_waiting`).
        """
        wallet_id, account_id, owner = await _payee(conn, row, word)
        charge = await self._fees.charge(
            conn, "deposit", row.amount_msat, level=owner.level, version=owner.fees_version
        )
        posting = released(
            await self._ids.load(conn),
            row.deposited,
            place=row.booked.place or "suspense",
            owner=owner.ledger_account_id,
            charge=charge,
            repaid_msat=await repay_in_tx(conn, row.id, Msat(row.amount_msat - charge.fee_msat)),
            number=row.booked.confs,
            actor=operator,
        )
        try:
            await post_new_in_tx(conn, posting)
        except Refused as refused:
            if refused.code == "account_closed":  # at this very moment
                raise payee_closed() from refused
            raise
        credited = row.now_booked(
            status=DepositStatus.CREDITED,
            wallet_id=wallet_id,
            account_id=account_id,
            release_ref=posting.ref,
            fee_msat=charge.fee_msat,
            fee_version=charge.version,
            fee_level=charge.level,
            counted_msat=max(row.booked.counted_msat, row.amount_msat),
            credited_at=row.now,
        )
        await write_booked_in_tx(conn, [credited])
        return account_id, posting.ref


async def _payee(conn: Connection, row: DepositRow, word: DepositDecisionRow) -> tuple[WalletId, AccountId, Payer]:
    """The wallet that is credited, with the rules in force for its account. Raises Refused for a closed account."""
    wallet_id, account_id = row.booked.wallet_id, row.booked.account_id
    if word.wallet_id is not None:
        wallet_id, account_id = word.wallet_id, await find_owner_of(conn, word.wallet_id)
    if wallet_id is None or account_id is None:
        raise not_waiting("it has no owner, and must be attributed")
    payer = await find_payer(conn, account_id, wallet_id, None)
    if payer is None or payer.status == "closed":
        raise payee_closed()
    return wallet_id, account_id, payer
