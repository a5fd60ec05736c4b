"""The versions of a payout: plan, unsigned and signed transaction, each stored before the next step is taken.

What is written is never changed: a version has one plan, one unsigned and one signed transaction. At most one version
of a payout is ever confirmed, because each shares an input with every earlier one that still can be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from engine.domain.deposit import Outpoint
from engine.domain.ids import PayoutId, Txid
from engine.domain.money import Sat
from engine.domain.withdrawal.withdrawal import VersionKind
from engine.ledger.database import Connection, Reader, change_one, change_rows, translated

_REFUSED_CHARACTERS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A coin that the version spends."""

    outpoint: Outpoint
    amount_sat: Sat


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """A plan. Its inputs are in the order of the transaction."""

    payout_id: PayoutId
    number: int
    kind: VersionKind
    rate_sat_kvb: int
    fee_sat: Sat
    weight: int
    change_sat: Sat = Sat(0)
    change_vout: int | None = None
    change_address: str | None = None
    """Known when an earlier version has it; else the draft writes a fresh one."""
    inputs: Sequence[Input] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow(NewVersion):
    """A version as it is stored."""

    psbt: str | None
    raw: str | None
    """The signed bytes, in hex: the same are sent as often as needed."""
    txid: Txid | None
    refused: str | None
    created_at: datetime
    signed_at: datetime | None
    broadcast_at: datetime | None


_NEW = tuple(each.name for each in fields(NewVersion) if each.name != "inputs")
_COLUMNS = ", ".join(f"v.{each.name}" for each in fields(VersionRow) if each.name != "inputs")
_READ = f"""
SELECT {_COLUMNS}, i.txids AS input_txids, i.vouts AS input_vouts, i.amounts AS input_amounts
  FROM bank.payout_versions v
 CROSS JOIN LATERAL (SELECT array_agg(txid ORDER BY place) AS txids, array_agg(vout ORDER BY place) AS vouts,
                            array_agg(amount_sat ORDER BY place) AS amounts
                       FROM bank.payout_inputs n WHERE n.payout_id = v.payout_id AND n.number = v.number) i"""  # noqa: S608


async def add_in_tx(conn: Connection, new: NewVersion) -> None:
    """Write the plan with its inputs. Raises InvariantBroken for a number that is taken."""
    await change_one(
        conn,
        f"""INSERT INTO bank.payout_versions({", ".join(_NEW)})
            VALUES ({", ".join(f"${at}" for at in range(1, len(_NEW) + 1))}) ON CONFLICT DO NOTHING""",  # noqa: S608 - constant
        *(getattr(new, name) for name in _NEW),
    )
    await change_rows(
        conn,
        len(new.inputs),
        """INSERT INTO bank.payout_inputs(payout_id, number, txid, vout, amount_sat, place)
           SELECT $1, $2, n.txid, n.vout, n.amount_sat, n.place - 1
             FROM unnest($3::text[], $4::int[], $5::bigint[]) WITH ORDINALITY n(txid, vout, amount_sat, place)""",
        new.payout_id,
        new.number,
        [each.outpoint.txid for each in new.inputs],
        [each.outpoint.vout for each in new.inputs],
        [each.amount_sat for each in new.inputs],
    )


async def list_versions(conn: Reader, payout: PayoutId) -> list[VersionRow]:
    """All of them, the first one first."""
    with translated():
        rows = await conn.fetch(f"{_READ} WHERE v.payout_id = $1 ORDER BY v.number", payout)
    return [_read(dict(row)) for row in rows]


async def find_of_txid(conn: Reader, txid: Txid) -> VersionRow | None:
    """The version with this transaction, if it is one of ours."""
    with translated():
        row = await conn.fetchrow(f"{_READ} WHERE v.txid = $1", txid)
    return None if row is None else _read(dict(row))


async def set_draft_in_tx(
    conn: Connection, payout: PayoutId, number: int, *, psbt: str, change_address: str | None
) -> None:
    """Store the unsigned transaction, with the address of its change. Raises InvariantBroken when there is one."""
    await change_one(
        conn,
        """UPDATE bank.payout_versions SET psbt = $3, change_address = $4
            WHERE payout_id = $1 AND number = $2 AND psbt IS NULL
              AND (change_address IS NULL OR change_address = $4)""",
        payout,
        number,
        psbt,
        change_address,
    )


async def set_signed_in_tx(conn: Connection, payout: PayoutId, number: int, *, raw: str, txid: Txid) -> None:
    """Store the signed bytes. Nothing may be sent before this is committed. Raises InvariantBroken when there are
    some."""
    await change_one(
        conn,
        """UPDATE bank.payout_versions SET raw = $3, txid = $4, signed_at = clock_timestamp()
            WHERE payout_id = $1 AND number = $2 AND raw IS NULL AND psbt IS NOT NULL""",
        payout,
        number,
        raw,
        txid,
    )


async def mark_broadcast_in_tx(conn: Connection, payout: PayoutId, number: int) -> None:
    """The node has taken it. A repeat keeps the first time."""
    await change_one(
        conn,
        """UPDATE bank.payout_versions SET broadcast_at = coalesce(broadcast_at, clock_timestamp()), refused = NULL
            WHERE payout_id = $1 AND number = $2 AND raw IS NOT NULL""",
        payout,
        number,
    )


async def note_refused_in_tx(conn: Connection, payout: PayoutId, number: int, why: str) -> None:
    """Why the node would not take it: its own words, made harmless."""
    await change_one(
        conn,
        "UPDATE bank.payout_versions SET refused = $3 WHERE payout_id = $1 AND number = $2",
        payout,
        number,
        why[:_REFUSED_CHARACTERS],
    )


def _read(row: Mapping[str, Any]) -> VersionRow:
    columns = dict(row)
    coins = zip(*(columns.pop(f"input_{name}") or () for name in ("txids", "vouts", "amounts")), strict=True)
    inputs = tuple(
        Input(outpoint=Outpoint(txid=Txid(txid), vout=vout), amount_sat=Sat(amount)) for txid, vout, amount in coins
    )
    return VersionRow(**{**columns, "kind": VersionKind(columns["kind"]), "inputs": inputs})
