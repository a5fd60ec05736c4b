"""The hot wallet's coins, what spends them, and whose deposits each descends from (`provenance.py`).

A transaction never changes its inputs. So origins do not depend on blocks: a reorganisation or a replacement changes
which coins exist and which are spent, and a coin that comes back has its origins still. Coins and spends may be
recorded in any order and any number of times. What is recorded late is carried on to all that descends from it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.bank.chain.provenance import UNKNOWN, Family, trace
from engine.domain.deposit import Outpoint
from engine.domain.ids import AccountId, Txid
from engine.domain.money import Sat
from engine.ledger.database import Connection, change_any, translated

_LONGEST_S = 60
"""The time-out of a statement over many coins; others have seconds."""
_AGAIN = 6
"""So many blocks below the fork."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenCoin:
    """An output of the wallet. Without a height it is in the mempool."""

    txid: str
    vout: int
    amount_sat: int
    address: str | None
    change: bool
    block_height: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenSpend:
    """A transaction `txid` and an output that it spends. Without a height it is in the mempool."""

    txid: str
    outpoint: tuple[str, int]
    block_height: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeCoin:
    """A coin that nothing spends."""

    outpoint: Outpoint
    amount_sat: Sat
    address: str | None
    change: bool
    block_height: int | None


def free_coin(row: Mapping[str, Any]) -> FreeCoin:
    """Read from the columns of `bank.coins`."""
    return FreeCoin(
        outpoint=Outpoint(txid=Txid(row["txid"]), vout=row["vout"]),
        amount_sat=Sat(row["amount_sat"]),
        address=row["address"],
        change=row["change"],
        block_height=row["block_height"],
    )


async def record_opening_in_tx(conn: Connection, coins: Sequence[SeenCoin]) -> None:
    """Record the coins of the adoption, which descend from nobody. A repeat adds none."""
    await change_any(
        conn,
        """INSERT INTO bank.coins(txid, vout, amount_sat, address, change, block_height, opening)
           SELECT *, true FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::boolean[], $6::int[])
           ON CONFLICT (txid, vout) DO NOTHING""",
        *_columns([each for each in coins if each.amount_sat > 0]),
    )


async def record_in_tx(
    conn: Connection,
    coins: Sequence[SeenCoin],
    spends: Sequence[SeenSpend],
    *,
    unmined: Sequence[str],
    gone: Sequence[str],
) -> None:
    """Write down the wallet's outputs and what spends them, as they are now.

    `unmined` are transactions that have left their block, `gone` those that are in no block and not in the mempool.
    A coin or a spend in the same call counts as seen after that. Spends of outpoints that are not ours may be left
    out: a transaction that only pays us spends none of ours. Outputs of 0 sat are no coins.
    """
    touched = await _leave_in_tx(conn, unmined, gone)
    seen = {(each.txid, each.vout): each for each in coins if each.amount_sat > 0}
    moved, spenders = await _see_spends_in_tx(conn, {(each.outpoint, each.txid): each for each in spends}.values())
    new = await _see_coins_in_tx(conn, list(seen.values()))
    await _settle_in_tx(conn, touched | set(new) | moved)
    await retrace_in_tx(conn, {txid for txid, _vout in new} | spenders)


async def retrace_in_tx(conn: Connection, txids: Collection[str]) -> None:
    """Work the origins of these transactions' outputs out anew, and those of all that descends from them.

    To be called after a deposit was given to an account: its coins are then no longer `UNKNOWN`. A repeat changes
    nothing.
    """
    if not txids:
        return
    with translated():
        rows = await conn.fetch(_DESCENDANTS, sorted(txids), timeout=_LONGEST_S)
    reached = [row["txid"] for row in rows]
    traced = trace(await _read_family_in_tx(conn, reached))
    new = {(*outpoint, account) for outpoint, accounts in traced.items() for account in accounts}
    with translated():
        rows = await conn.fetch(
            "SELECT txid, vout, account_id FROM unnest($1::text[]) r(txid) JOIN bank.coin_origins USING (txid)",
            reached,
            timeout=_LONGEST_S,
        )
    old = {(row["txid"], row["vout"], row["account_id"]) for row in rows}
    await _write_origins_in_tx(conn, new - old, old - new)


async def list_unlinked(conn: Connection, account: AccountId, limit: int) -> list[FreeCoin]:
    """Mined coins that no deposit of this account is an ancestor of, the largest first.

    Left out are also coins of unknown origin: they may be anybody's.
    """
    with translated():
        rows = await conn.fetch(
            """SELECT txid, vout, amount_sat, address, change, block_height FROM bank.coins c
                WHERE spent_by IS NULL AND NOT gone AND block_height IS NOT NULL
                  AND NOT EXISTS (SELECT FROM bank.coin_origins o
                                   WHERE (o.txid, o.vout) = (c.txid, c.vout) AND o.account_id IN ($1, $2))
                ORDER BY amount_sat DESC, txid, vout LIMIT $3""",
            account,
            UNKNOWN,
            limit,
            timeout=_LONGEST_S,
        )
    return [free_coin(dict(row)) for row in rows]


async def read_origins(
    conn: Connection, outpoints: Iterable[tuple[str, int]]
) -> Mapping[tuple[str, int], frozenset[str]]:
    """The accounts that each coin descends from, or `UNKNOWN`. The house's own has none. Others are left out."""
    wanted = sorted(set(outpoints))
    with translated():
        rows = await conn.fetch(
            """SELECT c.txid, c.vout, array_remove(array_agg(o.account_id), NULL) AS accounts
                 FROM unnest($1::text[], $2::int[]) w(txid, vout) JOIN bank.coins c USING (txid, vout)
                 LEFT JOIN bank.coin_origins o USING (txid, vout) GROUP BY c.txid, c.vout""",
            [txid for txid, _vout in wanted],
            [vout for _txid, vout in wanted],
            timeout=_LONGEST_S,
        )
    return {(row["txid"], row["vout"]): frozenset(row["accounts"]) for row in rows}


async def forget_origins_in_tx(conn: Connection, coins: Collection[Outpoint]) -> None:
    """The chain has shown that the books are wrong about where these come from: anybody's, until they are traced anew.

    A repeat changes nothing.
    """
    await _write_origins_in_tx(conn, [(each.txid, each.vout, UNKNOWN) for each in coins], ())


async def list_unsettled_txids(conn: Connection, above: int) -> set[str]:
    """Transactions with coins or spends of ours whose place may change: mined above this height, or in the mempool.

    Change and spends are also looked at again in the blocks just below: nothing else has their blocks' hashes, so one
    that was found in a block which was left at once might stand there for ever.
    """
    with translated():
        rows = await conn.fetch(
            """SELECT txid FROM bank.coins WHERE block_height > $1
               UNION SELECT txid FROM bank.coins WHERE block_height IS NULL AND NOT gone
               UNION SELECT txid FROM bank.coins WHERE block_height > $1 - $2::int AND change
               UNION SELECT spender FROM bank.coin_spends WHERE block_height > $1 - $2::int
               UNION SELECT spender FROM bank.coin_spends WHERE block_height IS NULL AND NOT gone""",
            above,
            _AGAIN,
            timeout=_LONGEST_S,
        )
    return {row["txid"] for row in rows}


async def _leave_in_tx(conn: Connection, unmined: Sequence[str], gone: Sequence[str]) -> set[tuple[str, int]]:
    """Take transactions out of their blocks. Returns the outpoints whose spender has changed its place."""
    left = sorted({*unmined, *gone})
    if not left:
        return set()
    await change_any(
        conn,
        """UPDATE bank.coins SET block_height = NULL, gone = gone OR txid = ANY($2)
            WHERE txid = ANY($1) AND (block_height IS NOT NULL OR (NOT gone AND txid = ANY($2)))""",
        left,
        list(gone),
    )
    with translated():
        rows = await conn.fetch(
            """UPDATE bank.coin_spends
                  SET block_height = NULL, gone = gone OR spender = ANY($2), seen_at = clock_timestamp()
                WHERE spender = ANY($1) AND (block_height IS NOT NULL OR (NOT gone AND spender = ANY($2)))
               RETURNING txid, vout""",
            left,
            list(gone),
        )
    return {(row["txid"], row["vout"]) for row in rows}


async def _see_coins_in_tx(conn: Connection, coins: Sequence[SeenCoin]) -> list[tuple[str, int]]:
    """Returns those that were not recorded before.

    Left out is what the wallet had received and spent before its adoption, which a rescan lists again.
    """
    if not coins:
        return []
    with translated():
        rows = await conn.fetch(
            """INSERT INTO bank.coins AS c (txid, vout, amount_sat, address, change, block_height)
               SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::boolean[], $6::int[])
                             n(txid, vout, amount_sat, address, change, block_height)
                WHERE coalesce(n.block_height > (SELECT min(adopted_height) FROM bank.chains), true)
                   OR EXISTS (SELECT FROM bank.addresses a WHERE a.address = n.address)
                   OR EXISTS (SELECT FROM bank.coins k WHERE k.txid = n.txid AND k.vout = n.vout)
                   OR EXISTS (SELECT FROM bank.coin_spends s JOIN bank.coins i ON i.txid = s.txid AND i.vout = s.vout
                               WHERE s.spender = n.txid)
               ON CONFLICT (txid, vout) DO UPDATE SET block_height = excluded.block_height, gone = false
                WHERE c.gone OR c.block_height IS DISTINCT FROM excluded.block_height
               RETURNING txid, vout, xmax = 0 AS is_new""",
            *_columns(coins),
            timeout=_LONGEST_S,
        )
    return [(row["txid"], row["vout"]) for row in rows if row["is_new"]]


async def _see_spends_in_tx(conn: Connection, spends: Collection[SeenSpend]) -> tuple[set[tuple[str, int]], set[str]]:
    """Returns the outpoints with a new spender or one at another place, and the new spenders."""
    if not spends:
        return set(), set()
    with translated():
        rows = await conn.fetch(
            """INSERT INTO bank.coin_spends AS s (txid, vout, spender, block_height)
               SELECT * FROM unnest($1::text[], $2::int[], $3::text[], $4::int[])
               ON CONFLICT (txid, vout, spender) DO UPDATE
                  SET block_height = excluded.block_height, gone = false, seen_at = clock_timestamp()
                WHERE s.gone OR s.block_height IS DISTINCT FROM excluded.block_height
               RETURNING txid, vout, spender, xmax = 0 AS is_new""",
            [each.outpoint[0] for each in spends],
            [each.outpoint[1] for each in spends],
            [each.txid for each in spends],
            [each.block_height for each in spends],
            timeout=_LONGEST_S,
        )
    return {(row["txid"], row["vout"]) for row in rows}, {row["spender"] for row in rows if row["is_new"]}


async def _settle_in_tx(conn: Connection, outpoints: Collection[tuple[str, int]]) -> None:
    """Write which spender is in force: one in a block before one in the mempool, and the last that was seen."""
    if not outpoints:
        return
    await change_any(
        conn,
        """UPDATE bank.coins c SET spent_by = n.spender, spent_height = n.block_height
             FROM (SELECT t.txid, t.vout, best.spender, best.block_height
                     FROM unnest($1::text[], $2::int[]) t(txid, vout) LEFT JOIN LATERAL (
                          SELECT s.spender, s.block_height FROM bank.coin_spends s
                           WHERE (s.txid, s.vout) = (t.txid, t.vout) AND NOT s.gone
                           ORDER BY s.block_height IS NULL, s.seen_at DESC, s.spender LIMIT 1) best ON true) n
            WHERE (c.txid, c.vout) = (n.txid, n.vout)
              AND (c.spent_by, c.spent_height) IS DISTINCT FROM (n.spender, n.block_height)""",
        [txid for txid, _vout in outpoints],
        [vout for _txid, vout in outpoints],
    )


_DESCENDANTS = """
WITH RECURSIVE reached(txid) AS (
    SELECT unnest($1::text[])
    UNION
    SELECT s.spender FROM reached r JOIN bank.coins c ON c.txid = r.txid
      JOIN bank.coin_spends s ON (s.txid, s.vout) = (c.txid, c.vout))
SELECT txid FROM reached"""
"""These transactions and all that spend their outputs, through any number of generations."""


async def _read_family_in_tx(conn: Connection, txids: Sequence[str]) -> Family:
    """What the origins of these transactions' outputs depend on."""
    with translated():
        coins = await conn.fetch(_PAID, txids, timeout=_LONGEST_S)
        inputs = await conn.fetch(_INPUTS, txids, timeout=_LONGEST_S)
    family, of_others = Family(), set[tuple[str, int]]()
    for row in coins:
        family.paid[row["txid"], row["vout"]] = {row["account"], row["owner"], *row["payees"]} - {None}
    for row in inputs:
        outpoint = row["txid"], row["vout"]
        family.inputs.setdefault(row["spender"], []).append(outpoint)
        if outpoint not in family.paid:
            of_others.add(outpoint)
    family.known.update(await read_origins(conn, of_others))
    return family


async def _write_origins_in_tx(
    conn: Connection, new: Collection[tuple[str, int, str]], outdated: Collection[tuple[str, int, str]]
) -> None:
    for rows, statement in ((outdated, _FORGET), (new, _ADD)):
        if rows:
            columns = [list(column) for column in zip(*sorted(rows), strict=True)]
            await change_any(conn, statement, *columns)


_PAID = """
SELECT c.txid, c.vout, a.account_id AS account, d.account_id AS owner, ARRAY(
       SELECT w.account_id FROM bank.payout_versions v JOIN bank.withdrawals w ON w.payout_id = v.payout_id
        WHERE v.txid = c.txid) AS payees
  FROM unnest($1::text[]) r(txid) JOIN bank.coins c ON c.txid = r.txid
  LEFT JOIN bank.addresses a ON a.address = c.address
  LEFT JOIN bank.deposits d ON d.txid = c.txid AND d.vout = c.vout WHERE NOT c.opening"""

_INPUTS = """
SELECT s.spender, s.txid, s.vout FROM unnest($1::text[]) r(txid) JOIN bank.coin_spends s ON s.spender = r.txid
  JOIN bank.coins c ON c.txid = s.txid AND c.vout = s.vout"""

_FORGET = """
DELETE FROM bank.coin_origins o USING unnest($1::text[], $2::int[], $3::text[]) f(txid, vout, account_id)
 WHERE o.txid = f.txid AND o.vout = f.vout AND o.account_id = f.account_id"""

_ADD = """
INSERT INTO bank.coin_origins(txid, vout, account_id) SELECT * FROM unnest($1::text[], $2::int[], $3::text[])
ON CONFLICT DO NOTHING"""


def _columns(
    coins: Sequence[SeenCoin],
) -> tuple[list[str], list[int], list[int], list[str | None], list[bool], list[int | None]]:
    return (
        [each.txid for each in coins],
        [each.vout for each in coins],
        [each.amount_sat for each in coins],
        [each.address for each in coins],
        [each.change for each in coins],
        [each.block_height for each in coins],
    )
