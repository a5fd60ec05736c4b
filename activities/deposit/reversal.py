"""Takes a deposit back that a reorganisation has taken out of the chain.

What its owner still has is taken from the wallet. What he has spent becomes a loss and a receivable, and the account is
locked: two operators decide, or the deposit comes back. The caller has locked the row, and writes it in the same
transaction.
"""

from dataclasses import replace

from engine.bank.account.account_status import change_in_tx
from engine.bank.audit import Act, record_in_tx
from engine.bank.chain import receivable
from engine.bank.chain.deposit import DepositRow
from engine.bank.chain.reversal import find_owner, read_available_msat, read_settled
from engine.domain.deposit import DepositStatus
from engine.domain.errors import InvariantBroken, Refused
from engine.domain.money import Msat
from engine.ledger.chart import Chart
from engine.ledger.database import Connection
from engine.ledger.postings.deposit import taken_back
from engine.ledger.store import post_new_in_tx

_ACTOR = "deposit"


async def reverse(conn: Connection, chart: Chart, row: DepositRow) -> DepositRow:
    """Invert what was booked, the newest transfer first. Returns the row as it is then."""
    for ref in (row.booked.release_ref, row.booked.conf_ref):
        if ref is not None:
            await _take_back(conn, chart, row, ref)
    status = DepositStatus.REVERSED if row.booked.status is DepositStatus.CREDITED else DepositStatus.PENDING
    if row.below_minimum and status is DepositStatus.PENDING:
        status = DepositStatus.BELOW_MINIMUM
    return row.now_booked(
        status=status,
        conf_ref=None,
        place=None,
        release_ref=None,
        over_limit=row.booked.status is DepositStatus.HELD and row.facts.booking_is_of_this,
        credited_at=None,
        final_at=None,
    )


async def _take_back(conn: Connection, chart: Chart, row: DepositRow, ref: str) -> None:
    settled, owner, ids = await read_settled(conn, ref), await find_owner(conn, row.id), await chart.load(conn)
    credited_msat = Msat(0 if owner is None else -settled.get(owner.ledger_account_id, 0))
    repaid_msat = -settled.get(ids.loss, 0)

    async def post(owner_pays_msat: Msat) -> str:
        posting = taken_back(
            row.deposited,
            ids,
            of=ref,
            settled=settled,
            owner=None if owner is None else owner.ledger_account_id,
            owner_pays_msat=owner_pays_msat,
        )
        await post_new_in_tx(conn, posting)
        return posting.ref

    async def takes_all(ledger_account_id: int) -> bool:
        """Whether the owner had it all. A payment may be quicker than the look at what is left."""
        while await read_available_msat(conn, ledger_account_id) >= credited_msat:
            try:
                async with conn.transaction():
                    await post(credited_msat)
            except Refused as refused:
                if refused.code != "insufficient_funds":
                    raise
            else:
                return True
        return False

    if owner is None:
        await post(Msat(0))
    elif owner.is_closed:  # it gives nothing back; two operators give up what it owes
        await _owe(conn, row, Msat(repaid_msat + credited_msat), await post(Msat(0)))
    elif repaid_msat or not await takes_all(owner.ledger_account_id):
        await _lock(conn, row)
        owner_pays_msat = min(credited_msat, await read_available_msat(conn, owner.ledger_account_id))
        await _owe(conn, row, Msat(repaid_msat + credited_msat - owner_pays_msat), await post(Msat(owner_pays_msat)))


async def _lock(conn: Connection, row: DepositRow) -> None:
    """Lock the owner's account: from now on nothing more leaves it, and what is left of it is certain."""
    account = row.booked.account_id
    if account is None:
        raise InvariantBroken(f"{row.id} has no account to be locked")
    for change in await change_in_tx(conn, account, status="locked", level=None):
        act = Act(operator=_ACTOR, key_id="chain", action=change.action, account_id=account, subject=row.id)
        await record_in_tx(conn, replace(act, detail={**change.detail, "why": "a reorganisation took a deposit back"}))


async def _owe(conn: Connection, row: DepositRow, amount_msat: Msat, ref: str) -> None:
    account, wallet = row.booked.account_id, row.booked.wallet_id
    if account is not None and wallet is not None and amount_msat > 0:
        await receivable.add_in_tx(
            conn, deposit=row.id, account=account, wallet=wallet, amount_msat=amount_msat, ref=ref
        )
