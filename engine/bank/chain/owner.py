"""The owners of deposits, with the rules that are in force for them."""

from collections.abc import Sequence
from typing import TypeAlias

from engine.bank.chain.deposit import DepositRow
from engine.bank.limit import Payer, find_payers
from engine.ledger.database import Connection

Owned: TypeAlias = "tuple[DepositRow, Payer | None]"
"""A deposit with its owner. None: it is nobody's, or the account is closed."""


async def find_open_owners(conn: Connection, rows: Sequence[DepositRow]) -> list[Owned]:
    """Each with its owner, in the order of their accounts in the books: every page locks balances in this order."""
    asked = {
        row.id: (row.booked.account_id, row.booked.wallet_id, None) for row in rows if row.booked.account_id is not None
    }
    found = dict(zip(asked, await find_payers(conn, list(asked.values())), strict=True))
    open_ones = {each: owner for each, owner in found.items() if owner is not None and owner.status != "closed"}
    owned = [(row, open_ones.get(row.id)) for row in rows]
    return sorted(owned, key=lambda each: each[1].ledger_account_id if each[1] else 0)
