"""Addresses of users: given from the pool once, for ever.

A worker makes addresses ahead (`address_pool.py`), so the API gives one without asking bitcoind, and every address is
in the books before anybody sees it. Who asks for more unpaid addresses than the rulebook allows gets the oldest one
again. So nobody empties the pool, and the wallet's window need not grow for addresses that nobody pays.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.bank.idempotency import Claim, claim_keys_in_tx
from engine.domain.errors import InvariantBroken, Refused, Unavailable, no_such
from engine.domain.ids import AccountId, WalletId
from engine.ledger.database import Connection, translated

Purpose = Literal["api", "tip"]
"""Who shows it: the account that asked for it, or the account's public page."""

NONE_READY = "no_address_ready"
"""The code of an empty pool."""
COLUMNS = "address, wallet_id, purpose, paid, given_at AS created_at"
"""What an account sees of its address."""

_PICK = """
WITH unpaid AS (
     SELECT address, given_at FROM bank.addresses WHERE wallet_id = $1 AND purpose = $2 AND NOT paid
      ORDER BY given_at, address LIMIT $3),
     again AS (
     SELECT address FROM unpaid WHERE (SELECT count(*) FROM unpaid) = $3 ORDER BY given_at, address LIMIT 1),
     ready AS (
     SELECT address FROM bank.addresses WHERE wallet_id IS NULL AND NOT EXISTS (SELECT FROM again)
      ORDER BY hd_index LIMIT 1 FOR UPDATE SKIP LOCKED)
SELECT address, false AS is_new FROM again UNION ALL SELECT address, true FROM ready"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A wallet that needs an address, and how many unpaid ones it may have."""

    account_id: AccountId
    wallet_id: WalletId
    purpose: Purpose
    most_unpaid: int


async def give_in_tx(
    conn: Connection, wanted: Wanted, claim: Callable[[str], Claim | None] = lambda _address: None
) -> Mapping[str, Any] | None:
    """Give the wallet an address, and claim the key for it. Returns its columns; None: the key is not free.

    `claim` makes the claim for the address that is given. Requests of one wallet go one after the other, so its bound
    is exact. The account is locked against closing. A locked account still receives. Raises NotFound for a wallet of
    another account, Refused for a closed account, and Unavailable (`no_address_ready`) when the pool is empty.
    """
    await _require_open_in_tx(conn, wanted)
    with translated():
        picked = await conn.fetchrow(_PICK, wanted.wallet_id, wanted.purpose, wanted.most_unpaid)
    if picked is None:
        raise none_ready()
    address: str = picked["address"]
    claimed = claim(address)
    if claimed is not None and not (await claim_keys_in_tx(conn, [claimed]))[0]:
        return None
    return await (_give_in_tx(conn, wanted, address) if picked["is_new"] else _read(conn, address))


async def find_current(conn: Connection, wallet_id: WalletId, purpose: Purpose) -> str | None:
    """The wallet's oldest unpaid address for this purpose."""
    with translated():
        address: str | None = await conn.fetchval(
            """SELECT address FROM bank.addresses WHERE wallet_id = $1 AND purpose = $2 AND NOT paid
                ORDER BY given_at, address LIMIT 1""",
            wallet_id,
            purpose,
        )
    return address


async def find_owners(conn: Connection, addresses: Sequence[str]) -> dict[str, WalletId]:
    """The wallets of these addresses. Left out: addresses of the pool, and those that are not ours."""
    with translated():
        rows = await conn.fetch(
            "SELECT address, wallet_id FROM bank.addresses WHERE address = ANY($1) AND wallet_id IS NOT NULL",
            list(addresses),
        )
    return {row["address"]: WalletId(row["wallet_id"]) for row in rows}


def none_ready() -> Unavailable:
    """The pool is empty: bitcoind is away, or addresses are asked for faster than it makes them."""
    return Unavailable("the pool has no address", code=NONE_READY)


async def _require_open_in_tx(conn: Connection, wanted: Wanted) -> None:
    with translated():
        row = await conn.fetchrow(
            """SELECT a.status, pg_advisory_xact_lock(hashtext('bank.addresses'), hashtext($1))
                 FROM bank.wallets w JOIN bank.accounts a ON a.id = w.account_id
                WHERE w.id = $1 AND a.id = $2 FOR SHARE OF a""",
            wanted.wallet_id,
            wanted.account_id,
        )
    if row is None:
        raise no_such("wallet")
    if row["status"] == "closed":
        raise Refused("This account is closed.", code="account_locked", account_status="closed")


async def _give_in_tx(conn: Connection, wanted: Wanted, address: str) -> Mapping[str, Any]:
    with translated():
        row = await conn.fetchrow(
            f"""UPDATE bank.addresses SET wallet_id = $2, account_id = $3, purpose = $4, given_at = clock_timestamp()
                 WHERE address = $1 AND wallet_id IS NULL RETURNING {COLUMNS}""",  # noqa: S608 - constant
            address,
            wanted.wallet_id,
            wanted.account_id,
            wanted.purpose,
        )
    if row is None:
        raise InvariantBroken(f"{address} was given to somebody else under our lock")
    return dict(row)


async def _read(conn: Connection, address: str) -> Mapping[str, Any]:
    with translated():
        row = await conn.fetchrow(f"SELECT {COLUMNS} FROM bank.addresses WHERE address = $1", address)  # noqa: S608 - constant
    if row is None:
        raise InvariantBroken(f"{address} has no row")
    return dict(row)
