"""An operator's request to the pump: look at the chain again from a height. It changes nothing that is right."""

from engine.ledger.database import Connection, change_one, translated


async def read_tip_in_tx(conn: Connection, wallet: str) -> tuple[int, int | None] | None:
    """(the tip's height, the height of a request that is open), locked. None before the wallet is adopted."""
    with translated():
        row = await conn.fetchrow(
            "SELECT tip_height, rescan_from FROM bank.chains WHERE wallet = $1 FOR NO KEY UPDATE", wallet
        )
    return None if row is None else (row["tip_height"], row["rescan_from"])


async def request_in_tx(conn: Connection, wallet: str, height: int) -> None:
    """Ask for a look from this height on. The pump clears the request when it has looked."""
    await change_one(
        conn, "UPDATE bank.chains SET rescan_from = $2, rescans = rescans + 1 WHERE wallet = $1", wallet, height
    )
