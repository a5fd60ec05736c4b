"""The balances of those who withdraw all they have, or are paid by them."""

from collections.abc import Sequence

from engine.domain.money import Msat
from engine.ledger.database import Connection, translated


async def lock_available_in_tx(conn: Connection, ledger_accounts: Sequence[int]) -> dict[int, Msat]:
    """What is available on each now. The balances stay as they are until the transaction ends.

    All that this transaction will post to must be named, and nothing may have been posted before: balances are locked
    in one order.
    """
    with translated():
        rows = await conn.fetch(
            "SELECT account_id, available FROM ledger.lock_balances($1)", sorted(set(ledger_accounts))
        )
    return {row["account_id"]: Msat(max(0, row["available"])) for row in rows}
