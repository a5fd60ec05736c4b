"""The accounts of the books: opened once, found by their code. No money moves here."""

from collections.abc import Sequence

from engine.domain.errors import InvariantBroken, NotFound
from engine.ledger.database import Connection, translated


async def open_account_in_tx(
    conn: Connection, code: str, kind: str, currency: str = "BTC", floor: int | None = None, mode: str = "locked"
) -> int:
    """Open an account, or find it: a repeat gives the same id. `floor` is in the account's normal direction, in msat.

    `mode` is "locked" (a balance row with a gapless history: users) or "append" (entries only: accounts that every
    payment touches).
    Raises Conflict (`reference_conflict`) when the code exists with another kind, currency, floor or mode.
    """
    check_in_transaction(conn)
    with translated():
        account_id: int = await conn.fetchval(
            "SELECT ledger.open_account($1, $2, $3, $4, $5)", code, kind, currency, floor, mode
        )
    return account_id


async def get_account_id(conn: Connection, code: str) -> int:
    """The id of an account by its code. Raises NotFound."""
    return (await get_account_ids(conn, [code]))[code]


async def get_account_ids(conn: Connection, codes: Sequence[str]) -> dict[str, int]:
    """The ids of accounts by their codes. Raises NotFound for the first that is missing."""
    with translated():
        rows = await conn.fetch("SELECT code, id FROM ledger.accounts WHERE code = ANY($1)", codes)
    found = {row["code"]: row["id"] for row in rows}
    for code in codes:
        if code not in found:
            raise NotFound(f"there is no account {code} in the books", account=code)
    return found


def check_in_transaction(conn: Connection) -> None:
    """Raises InvariantBroken outside of a transaction: each write to the books is part of its caller's transaction."""
    with translated():
        inside = conn.is_in_transaction()
    if not inside:
        raise InvariantBroken("the ledger writes in a transaction of its caller, and there is none")
