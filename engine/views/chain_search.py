"""What the bank knows of a transaction, an output, an address or a deposit, for operators."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.ledger.database import Connection, translated
from engine.views.page import Listing

DEPOSIT_COLUMNS = """id, txid, vout, address, wallet_id, account_id, amount_sat, coinbase, status, sight, block_height,
    block_hash, required, deep, below_minimum, over_limit, hold_ref, conf_ref, confs, place, release_ref, fee_msat,
    fee_version, alone, workflow_id, created_at, credited_at, final_at"""
DEPOSITS = Listing(columns=DEPOSIT_COLUMNS, source="bank.deposits")
"""Deposits of every account, and of none."""
DEPOSITS_OF_STATUS = Listing(columns=DEPOSIT_COLUMNS, source="bank.deposits", condition="status = $1")

MOST = 100
"""The most rows of each kind that a search gives."""

_DEPOSITS = f"""
SELECT {DEPOSIT_COLUMNS} FROM bank.deposits WHERE id IN (
       SELECT id FROM bank.deposits WHERE txid = $1 AND ($2::int IS NULL OR vout = $2)
       UNION SELECT deposit_id FROM bank.deposit_outpoints WHERE txid = $1 AND ($2::int IS NULL OR vout = $2)
       UNION SELECT id FROM bank.deposits WHERE id = $3
       UNION SELECT id FROM bank.deposits WHERE address = $3)
 ORDER BY created_at DESC, id DESC LIMIT $4"""  # noqa: S608 - constants
_EARLIER = """
SELECT deposit_id, txid, vout, amount_sat, replaced_at FROM bank.deposit_outpoints WHERE deposit_id = ANY($1)
 ORDER BY replaced_at, txid, vout LIMIT $2"""
_ADDRESSES = """
SELECT address, hd_index, made_height, wallet_id, account_id, purpose, paid, made_at, given_at FROM bank.addresses
 WHERE address = ANY($1) ORDER BY address LIMIT $2"""
_COINS = """
SELECT c.txid, c.vout, c.amount_sat, c.address, c.change, c.block_height, c.spent_by, c.spent_height, c.gone, c.seen_at,
       ARRAY(SELECT account_id FROM bank.coin_origins o WHERE o.txid = c.txid AND o.vout = c.vout
              ORDER BY account_id LIMIT $5) AS origins
  FROM bank.coins c WHERE (c.txid, c.vout) IN (
       SELECT txid, vout FROM bank.coins WHERE txid = $1 AND ($2::int IS NULL OR vout = $2)
       UNION SELECT txid, vout FROM bank.coins WHERE spent_by = $1 AND $2::int IS NULL
       UNION SELECT txid, vout FROM bank.coins WHERE address = $3
       UNION SELECT txid, vout FROM bank.deposits WHERE id = ANY($4))
 ORDER BY c.seen_at DESC, c.txid, c.vout LIMIT $5"""
_RECEIVABLES = """
SELECT id, deposit_id, account_id, wallet_id, amount_msat, ref, status, created_at, ended_at, ended_by
  FROM bank.receivables WHERE deposit_id = ANY($1) ORDER BY created_at DESC, id DESC LIMIT $2"""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is looked for: an output, a transaction, or a text that is an address or the id of a deposit."""

    txid: str | None = None
    vout: int | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All that is known, at most `MOST` rows of each kind."""

    deposits: Sequence[Row]
    earlier_outpoints: Sequence[Row]
    addresses: Sequence[Row]
    coins: Sequence[Row]
    receivables: Sequence[Row]

    @property
    def is_cut(self) -> bool:
        """Whether there may be more rows than are shown."""
        kinds = (self.deposits, self.earlier_outpoints, self.addresses, self.coins, self.receivables)
        return any(len(rows) >= MOST for rows in kinds)


async def find(conn: Connection, asked: Question) -> Found:
    """Deposits that have or had this output, pay this address or have this id, and what belongs to them."""
    with translated():
        deposits = await conn.fetch(_DEPOSITS, asked.txid, asked.vout, asked.text, MOST)
        ids = [row["id"] for row in deposits]
        addresses = list({row["address"] for row in deposits} | ({asked.text} if asked.text else set()))
        return Found(
            deposits=_dicts(deposits),
            earlier_outpoints=_dicts(await conn.fetch(_EARLIER, ids, MOST)),
            addresses=_dicts(await conn.fetch(_ADDRESSES, addresses, MOST)),
            coins=_dicts(await conn.fetch(_COINS, asked.txid, asked.vout, asked.text, ids, MOST)),
            receivables=_dicts(await conn.fetch(_RECEIVABLES, ids, MOST)),
        )


def _dicts(rows: Sequence[Any]) -> list[Row]:
    return [dict(row) for row in rows]
