"""The owners of deposits, with the rules that are in force for them."""

from collections.abc import Sequence

from engine.bank.chain.deposit import DepositRow
from engine.bank.limit import Payer, find_payers
from engine.ledger.database import Connection


async def find_open_owners(conn: Connection, rows: Sequence[DepositRow]) -> list[Payer | None]:
    """The owner of each deposit, with the rules that are in force. None: nobody's, or the account is closed."""
    asked = {
        row.id: (row.booked.account_id, row.booked.wallet_id, None) for row in rows if row.booked.account_id is not None
    }
    found = dict(zip(asked, await find_payers(conn, list(asked.values())), strict=True))
    owners = [found.get(row.id) for row in rows]
    return [None if owner is None or owner.status == "closed" else owner for owner in owners]
