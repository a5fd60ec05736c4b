"""What a reconciliation of the hot wallet reads from the books, in one snapshot: only what may make a difference.

The coins that bitcoind lists are handed in, and compared here. Rows come back for coins that only one side has, for
deposits that are not settled, for coins of recent spends, for payouts that are not over, and for what came in outside
of the books. So the cost grows with the wallet's unspent coins and with recent events, not with history.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from engine.bank.chain.cursor import find_chain
from engine.bank.chain.due import WATCHED
from engine.bank.withdrawal.sent import SentVersion, list_sent
from engine.clients.bitcoind.answer import Coin
from engine.domain.deposit import Block
from engine.ledger import chart
from engine.ledger.database import Connection, translated

_LONGEST_S = 60
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CoinRow:
    """A coin that may make a difference: what bitcoind lists of it, and what the books have."""

    txid: str
    vout: int
    amount_sat: int
    address: str | None
    listed: bool
    held: bool
    """Listed, and the wallet's own beyond doubt: confirmed, or of a transaction that spends coins of the wallet."""
    sure: bool
    """Confirmed, or change of its own transactions that bitcoind trusts."""
    recorded: bool
    block_height: int | None
    block_hash: str | None
    """Of the block at this height, as the pump has followed the chain."""
    gone: bool
    opening: bool
    own: bool
    """Its transaction spends coins of the wallet."""
    spent_by: str | None
    deposit: str | None
    booked: bool
    sight: str | None

    @property
    def name(self) -> str:
        """The outpoint, as an operator writes it."""
        return f"{self.txid}:{self.vout}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendRow:
    """A transaction that spends coins of the wallet. The books have a posting for it only if it is a payout's."""

    spender: str
    spent_sat: int
    back_sat: int
    """What of it came back to the wallet. Outputs that are deposits do not count: they are booked as such."""
    coins: list[str]
    """The largest that it spends."""
    in_force: bool
    """Whether all its coins are recorded as spent by it and bitcoind lists none of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """What two operators have booked by hand on the hot wallet."""

    id: str
    amount_msat: int
    """Debit +."""
    subject: str | None
    """The subject of the case that it names, else its reference: a transaction or an outpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HotBooks:
    """The books' side of a cut."""

    tip: Block
    """The tip that the pump had recorded."""
    settled_msat: int
    coins: list[CoinRow]
    spends: list[SpendRow]
    corrections: list[Corrected]
    sent: list[SentVersion]
    """Versions of payouts that are not over, or that were seen lately."""


async def list_wallets(conn: Connection) -> list[str]:
    """Every wallet of bitcoind that is in the books."""
    with translated():
        return [row["wallet"] for row in await conn.fetch("SELECT wallet FROM bank.chains ORDER BY wallet")]


async def read_books(conn: Connection, wallet: str, listed: Sequence[Coin], since: datetime) -> HotBooks:
    """The wallet's account and coins, compared with what bitcoind lists. `conn` must be in a snapshot.

    Spends, and coins of which nothing is booked, are read if they were seen after `since`, or if a correction names
    them; spends also if they are of a payout that is not over.
    """
    chain = await find_chain(conn, wallet)
    if chain is None:
        raise LookupError(wallet)
    with translated():
        settled_msat: int = await conn.fetchval(_SETTLED, chart.HOT)
        corrected = await conn.fetch(_CORRECTED, chart.HOT)
    corrections = [Corrected(**row) for row in corrected]
    named = sorted({each.subject.partition(":")[0] for each in corrections if each.subject})
    points = ([each.txid for each in listed], [each.vout for each in listed])
    sent = await list_sent(conn, since, named)
    spenders = sorted({*named, *(each.txid for each in sent)})
    with translated():
        coins = await conn.fetch(
            _COINS,
            *points,
            [each.amount_sat for each in listed],
            [each.address for each in listed],
            [each.confirmations > 0 or each.safe for each in listed],
            since,
            named,
            wallet,
            timeout=_LONGEST_S,
        )
        spends = await conn.fetch(_SPENDS, *points, since, spenders, _SHOWN, timeout=_LONGEST_S)
    return HotBooks(
        tip=chain.tip,
        settled_msat=settled_msat,
        coins=[CoinRow(**row) for row in coins],
        spends=[SpendRow(**row) for row in spends],
        corrections=corrections,
        sent=sent,
    )


def sum_corrected(corrections: Collection[Corrected]) -> dict[str, int]:
    """What was booked by hand for each subject, in msat."""
    sums: dict[str, int] = {}
    for each in corrections:
        if each.subject:
            sums[each.subject] = sums.get(each.subject, 0) + each.amount_msat
    return sums


_SETTLED = """
SELECT s.settled FROM ledger.accounts a CROSS JOIN LATERAL ledger.sums_at(a.id, 'infinity') s WHERE a.code = $1"""

_CORRECTED = """
SELECT c.id, CASE WHEN c.debit = $1 THEN c.amount_msat ELSE -c.amount_msat END AS amount_msat,
       coalesce(k.subject, c.reference) AS subject
  FROM bank.corrections c LEFT JOIN bank.cases k ON k.id = c.case_id AND k.account = $1
 WHERE c.status = 'posted' AND $1 IN (c.debit, c.credit) ORDER BY c.id"""

_OWN = """EXISTS (SELECT FROM bank.coin_spends s JOIN bank.coins i ON i.txid = s.txid AND i.vout = s.vout
                   WHERE s.spender = {txid})"""

_COINS = f"""
WITH listed AS MATERIALIZED (
    SELECT l.*, l.sure OR {_OWN.format(txid="l.txid")} AS held
      FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::boolean[])
           l(txid, vout, amount_sat, address, sure)),
odd AS (
    SELECT coalesce(l.txid, c.txid) AS txid, coalesce(l.vout, c.vout) AS vout
      FROM listed l FULL JOIN (SELECT txid, vout FROM bank.coins WHERE spent_by IS NULL AND NOT gone) c
        ON l.txid = c.txid AND l.vout = c.vout
     WHERE l.txid IS NULL OR c.txid IS NULL OR NOT l.sure
    UNION
    SELECT d.txid, d.vout FROM bank.deposits d WHERE {WATCHED}
    UNION
    SELECT s.txid, s.vout FROM bank.coin_spends s
     WHERE (NOT s.gone AND s.block_height IS NULL) OR s.block_height > (SELECT max(tip_height) FROM bank.chains) - 100
    UNION
    SELECT c.txid, c.vout FROM bank.coins c
     WHERE NOT c.opening AND NOT c.gone AND (c.seen_at >= $6 OR c.txid = ANY($7))
       AND NOT EXISTS (SELECT FROM bank.deposits d WHERE d.txid = c.txid AND d.vout = c.vout)
       AND NOT {_OWN.format(txid="c.txid")})
SELECT o.txid, o.vout, coalesce(c.amount_sat, l.amount_sat, d.amount_sat) AS amount_sat,
       coalesce(c.address, l.address) AS address, l.txid IS NOT NULL AS listed, coalesce(l.held, false) AS held,
       coalesce(l.sure, false) AS sure, c.txid IS NOT NULL AS recorded, c.block_height,
       b.hash AS block_hash, coalesce(c.gone, false) AS gone,
       coalesce(c.opening, false) AS opening, {_OWN.format(txid="o.txid")} AS own, c.spent_by, d.id AS deposit,
       d.conf_ref IS NOT NULL AS booked, d.sight
  FROM odd o LEFT JOIN bank.coins c ON c.txid = o.txid AND c.vout = o.vout
  LEFT JOIN listed l ON l.txid = o.txid AND l.vout = o.vout
  LEFT JOIN bank.deposits d ON d.txid = o.txid AND d.vout = o.vout
  LEFT JOIN bank.blocks b ON b.wallet = $8 AND b.height = c.block_height
 WHERE num_nonnulls(c.txid, l.txid, d.txid) > 0 ORDER BY amount_sat DESC, o.txid, o.vout"""  # noqa: S608 - constants

_SPENDS = """
SELECT s.spender, sum(c.amount_sat)::bigint AS spent_sat,
       (SELECT coalesce(sum(o.amount_sat), 0)::bigint FROM bank.coins o
         WHERE o.txid = s.spender AND NOT o.gone
           AND NOT EXISTS (SELECT FROM bank.deposits d WHERE d.txid = o.txid AND d.vout = o.vout)) AS back_sat,
       (array_agg(c.txid || ':' || c.vout ORDER BY c.amount_sat DESC))[:$5] AS coins,
       bool_and(c.spent_by = s.spender AND l.txid IS NULL) AS in_force
  FROM bank.coin_spends s JOIN bank.coins c ON c.txid = s.txid AND c.vout = s.vout
  LEFT JOIN unnest($1::text[], $2::int[]) l(txid, vout) ON l.txid = s.txid AND l.vout = s.vout
 WHERE NOT s.gone
   AND s.spender IN (SELECT spender FROM bank.coin_spends WHERE NOT gone AND (seen_at >= $3 OR spender = ANY($4)))
 GROUP BY s.spender ORDER BY s.spender"""
