"""Which coins payouts may spend, and the promise of each to at most one of them.

A coin is free when all of this is true; anything else is waited for, or left to an operator:

    mined, and as deep as the rule says       a reorganisation seldom takes it away
    neither spent nor gone                    by the chain as the pump has last written it down
    promised to no payout                     `bank.coin_reservations`, one row per coin
    not of a payout just dissolved for coins  they were spent by hand, and the pump may not have seen it yet
    mature, if a block created it             100 blocks: no node relays it earlier
    at an address, so that it can be signed   a bare multisig is nobody's
    the house's own, or change                of our own transactions: what a stranger pays there is not booked
    or a deposit                              that the books have in asset:hot, and whose owner is known

The coins of a wallet are chosen under one lock, so no two processes choose the same. The primary key of the
reservations says the same again.
"""

from collections.abc import Collection, Sequence

from engine.bank.chain.coin import FreeCoin, free_coin
from engine.bank.chain.provenance import UNKNOWN
from engine.domain.deposit import Outpoint
from engine.domain.errors import Conflict
from engine.domain.ids import AccountId, PayoutId, Txid
from engine.domain.money import Sat
from engine.ledger.database import Connection, Reader, change_any, translated

_MATURE = 100
"""Confirmations before a block's own reward can be spent: COINBASE_MATURITY of the consensus rules."""
_LONGEST_S = 60
"""The time-out of a statement over many coins; others have seconds."""

_IS_OURS = """
EXISTS (SELECT FROM bank.coin_spends s JOIN bank.coins i ON i.txid = s.txid AND i.vout = s.vout
         WHERE s.spender = c.txid AND NOT s.gone)"""
"""Its transaction spends a coin of the wallet. Anybody can pay to a change address, and the books have none of that."""

_FREE = f"""
FROM bank.coins c JOIN bank.chains h ON h.wallet = $1
LEFT JOIN bank.deposits d ON d.txid = c.txid AND d.vout = c.vout
WHERE c.spent_by IS NULL AND NOT c.gone AND c.address IS NOT NULL
  AND h.tip_height - c.block_height + 1 >= CASE WHEN d.coinbase THEN greatest($2::int, {_MATURE}) ELSE $2::int END
  AND (c.opening OR (c.change AND {_IS_OURS})
       OR (d.sight = 'mined' AND starts_with(d.conf_ref, format('chain:%s:%s:', d.txid, d.vout))))
  AND d.status IS DISTINCT FROM 'unattributed'
  AND NOT EXISTS (SELECT FROM bank.coin_reservations r WHERE r.txid = c.txid AND r.vout = c.vout)
  AND NOT EXISTS (SELECT FROM bank.payout_inputs i JOIN bank.payouts p ON p.id = i.payout_id
                   WHERE i.txid = c.txid AND i.vout = c.vout AND p.coins_gone
                     AND p.created_at > clock_timestamp() - interval '10 minutes')
  AND ($3::text[] IS NULL OR NOT EXISTS (
       SELECT FROM bank.coin_origins o WHERE o.txid = c.txid AND o.vout = c.vout AND o.account_id = ANY($3)))"""  # noqa: S608 - constant


async def lock_coins_in_tx(conn: Connection, wallet: str) -> None:
    """Choose and reserve this wallet's coins alone until the transaction ends."""
    with translated():
        await conn.execute("SELECT pg_advisory_xact_lock(hashtext('bank.coins'), hashtext($1))", wallet)


async def list_free(
    conn: Reader,
    wallet: str,
    *,
    min_depth: int,
    limit: int,
    unlinked_to: Collection[AccountId] | None = None,
) -> list[FreeCoin]:
    """Coins that a payout may spend, the largest first.

    `unlinked_to`: only those that descend from no deposit of these accounts, and of nobody unknown, who may be anybody.
    """
    with translated():
        rows = await conn.fetch(
            f"""SELECT c.txid, c.vout, c.amount_sat, c.address, c.change, c.block_height {_FREE}
                 ORDER BY c.amount_sat DESC, c.txid, c.vout LIMIT $4""",
            wallet,
            min_depth,
            _linked(unlinked_to),
            limit,
            timeout=_LONGEST_S,
        )
    return [free_coin(dict(row)) for row in rows]


async def sum_free(
    conn: Reader,
    wallet: str,
    *,
    min_depth: int,
    most: int,
    unlinked_to: Collection[AccountId] | None = None,
) -> Sat:
    """What the `most` largest of them are together."""
    with translated():
        total: int = await conn.fetchval(
            f"""SELECT coalesce(sum(amount_sat), 0)::bigint FROM (
                       SELECT c.amount_sat {_FREE} ORDER BY c.amount_sat DESC LIMIT $4) f""",  # noqa: S608 - constant
            wallet,
            min_depth,
            _linked(unlinked_to),
            most,
            timeout=_LONGEST_S,
        )
    return Sat(total)


async def reserve_in_tx(conn: Connection, payout: PayoutId, coins: Sequence[Outpoint]) -> None:
    """Promise these coins to the payout. A coin that it has already stays its own.

    Raises Conflict (`coin_reserved`) when another payout has one of them: nothing of this transaction may stay then.
    """
    columns = [each.txid for each in coins], [each.vout for each in coins]
    await change_any(
        conn,
        """INSERT INTO bank.coin_reservations(txid, vout, payout_id)
           SELECT n.txid, n.vout, $1 FROM unnest($2::text[], $3::int[]) n(txid, vout) ORDER BY n.txid, n.vout
           ON CONFLICT (txid, vout) DO NOTHING""",
        payout,
        *columns,
    )
    with translated():
        own: int = await conn.fetchval(
            """SELECT count(*) FROM bank.coin_reservations r JOIN (
                      SELECT DISTINCT * FROM unnest($2::text[], $3::int[]) u(txid, vout)) n USING (txid, vout)
                WHERE r.payout_id = $1""",
            payout,
            *columns,
        )
    if own != len(set(coins)):
        raise Conflict(f"another payout has a coin that {payout} was to spend", code="coin_reserved")


async def release_in_tx(conn: Connection, payout: PayoutId) -> None:
    """The payout is final or dissolved: whatever it has not spent is free again. A repeat changes nothing."""
    await change_any(conn, "DELETE FROM bank.coin_reservations WHERE payout_id = $1", payout)


async def list_reserved(conn: Reader, payout: PayoutId) -> list[Outpoint]:
    """The coins that are promised to it."""
    with translated():
        rows = await conn.fetch(
            "SELECT txid, vout FROM bank.coin_reservations WHERE payout_id = $1 ORDER BY txid, vout", payout
        )
    return [Outpoint(txid=Txid(row["txid"]), vout=row["vout"]) for row in rows]


def _linked(accounts: Collection[AccountId] | None) -> list[str] | None:
    return None if accounts is None else sorted({*accounts, UNKNOWN})


async def read_addresses(conn: Reader, outpoints: Sequence[Outpoint]) -> dict[Outpoint, str]:
    """The address that each of these coins was paid to. One that the books do not know, or without one, is absent."""
    with translated():
        rows = await conn.fetch(
            """SELECT c.txid, c.vout, c.address FROM unnest($1::text[], $2::int[]) n(txid, vout)
                 JOIN bank.coins c USING (txid, vout) WHERE c.address IS NOT NULL""",
            [each.txid for each in outpoints],
            [each.vout for each in outpoints],
        )
    return {Outpoint(txid=Txid(row["txid"]), vout=row["vout"]): row["address"] for row in rows}


async def read_spenders(conn: Reader, outpoints: Sequence[Outpoint]) -> dict[Outpoint, Txid]:
    """What spends each of these coins, as the pump has last seen it, also in the mempool. Others are absent."""
    with translated():
        rows = await conn.fetch(
            """SELECT c.txid, c.vout, c.spent_by FROM unnest($1::text[], $2::int[]) n(txid, vout)
                 JOIN bank.coins c USING (txid, vout) WHERE c.spent_by IS NOT NULL""",
            [each.txid for each in outpoints],
            [each.vout for each in outpoints],
        )
    return {Outpoint(txid=Txid(row["txid"]), vout=row["vout"]): Txid(row["spent_by"]) for row in rows}
