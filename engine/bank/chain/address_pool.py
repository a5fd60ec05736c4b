"""The pool of addresses: made by bitcoind's wallet, written down, and watched for as long as the books exist."""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.domain.errors import InvariantBroken
from engine.ledger.database import Connection, change_any, change_one, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeAddress:
    """An address of the books, given or not."""

    address: str
    hd_index: int
    made_height: int


async def count_ready(conn: Connection, most: int) -> int:
    """How many addresses can be given, counted up to `most`."""
    with translated():
        count: int = await conn.fetchval(
            "SELECT count(*) FROM (SELECT FROM bank.addresses WHERE wallet_id IS NULL LIMIT $1) ready", most
        )
    return count


async def add_made(conn: Connection, wallet: str, made: Mapping[str, int]) -> int:
    """Put addresses with their indices into the pool. Returns how many of them are new to the books.

    A wallet that was restored from an older copy makes addresses a second time; these stay as they are. A repeat
    changes nothing.
    """
    with translated():
        rows = await conn.fetch(
            """INSERT INTO bank.addresses(address, hd_index, made_height)
               SELECT m.address, m.hd_index, c.tip_height
                 FROM unnest($2::text[], $3::int[]) m(address, hd_index), bank.chains c WHERE c.wallet = $1
               ON CONFLICT (address) DO NOTHING RETURNING address""",
            wallet,
            list(made),
            list(made.values()),
        )
    return len(rows)


async def tell_problem(conn: Connection, wallet: str, problem: str | None) -> None:
    """Write down why no address can be made or watched, for operators. None: all is well again."""
    await change_any(
        conn,
        "UPDATE bank.chains SET pool_problem = $2 WHERE wallet = $1 AND pool_problem IS DISTINCT FROM $2",
        wallet,
        problem,
    )


async def list_last(conn: Connection) -> list[MadeAddress]:
    """The address with the highest index among segwit v0 addresses, and that among taproot addresses.

    bitcoind counts the addresses of each type by themselves.
    """
    with translated():
        rows = await conn.fetch(
            """SELECT DISTINCT ON (split_part(address, '1', 2) LIKE 'p%') address, hd_index, made_height
                 FROM bank.addresses ORDER BY split_part(address, '1', 2) LIKE 'p%', hd_index DESC"""
        )
    return [MadeAddress(**row) for row in rows]


async def list_made(conn: Connection, *, below: str | None, limit: int) -> list[MadeAddress]:
    """A page of all addresses, ordered by their text. `below` is the last one of the page before."""
    with translated():
        rows = await conn.fetch(
            """SELECT address, hd_index, made_height FROM bank.addresses
                WHERE address < $1 OR $1::text IS NULL ORDER BY address DESC LIMIT $2""",
            below,
            limit,
        )
    return [MadeAddress(**row) for row in rows]


async def find_oldest_coin(conn: Connection) -> tuple[str, int] | None:
    """The txid and height of the oldest output in a block that the books have, spent or not."""
    with translated():
        row = await conn.fetchrow(
            """SELECT txid, block_height FROM bank.coins WHERE block_height IS NOT NULL
                ORDER BY block_height, txid LIMIT 1"""
        )
    return None if row is None else (row["txid"], row["block_height"])


async def find_scan(conn: Connection, wallet: str) -> int | None:
    """The height from which bitcoind's wallet must read the blocks again; None where it need not."""
    with translated():
        row = await conn.fetchrow("SELECT scan_from FROM bank.chains WHERE wallet = $1", wallet)
    if row is None:
        raise InvariantBroken(f"addresses are made for the wallet {wallet} before it was adopted")
    height: int | None = row["scan_from"]
    return height


async def ask_for_scan(conn: Connection, wallet: str, height: int) -> None:
    """Remember that the wallet must read the blocks again from this height, until `note_scan`."""
    await change_one(
        conn, "UPDATE bank.chains SET scan_from = least(scan_from, $2::int) WHERE wallet = $1", wallet, height
    )


async def note_scan(conn: Connection, wallet: str, height: int) -> None:
    """The wallet has read the blocks from this height on. The pump is asked to look at them again.

    A repeat changes nothing, and so does a scan from above what is asked for meanwhile.
    """
    await change_any(
        conn,
        """UPDATE bank.chains SET scan_from = NULL, rescan_from = least(rescan_from, scan_from), rescans = rescans + 1
            WHERE wallet = $1 AND scan_from >= $2""",
        wallet,
        height,
    )
