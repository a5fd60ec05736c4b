"""Writes down what the chain shows of deposits: facts only, in the pump's transaction. Money moves elsewhere.

    an output of a transaction that is alive, at an address of the wallet   a new row
    the same output at another place (block, mempool, nowhere)              the row's facts
    another transaction with the same inputs that pays the same address     the same row, at its new outpoint

A look may be written any number of times, and in any pieces. All its rows are locked first, in the order of their ids.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.domain.deposit import Block, DepositRules, Outpoint, Sight
from engine.domain.ids import DepositId, Txid, new_id
from engine.domain.money import Sat
from engine.ledger.database import Connection, change_any, change_rows, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenOutput:
    """An output that pays an address of the wallet, as bitcoind shows it now."""

    outpoint: Outpoint
    address: str
    amount_sat: Sat
    coinbase: bool
    sight: Sight
    block: Block | None
    conflicts: tuple[str, ...]
    """Transactions of the wallet that spend the same inputs."""
    workflow_id: str
    """For a new row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A transaction that is not where it was, or may not be."""

    txid: Txid
    sight: Sight
    block: Block | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What of a row decides what becomes of an output."""

    id: DepositId
    txid: str
    vout: int
    address: str
    amount_sat: int
    sight: str
    block_hash: str | None
    is_booked: bool
    holds: int
    confs: int


_DOUBTFUL = 100
"""So many blocks below the fork a transaction may lie in a block of a branch that came and went within one look."""

_Replaced = tuple[_Known, SeenOutput, _Known | None]
"""A deposit, the output that takes its place, and the deposit that had this outpoint before."""

_KNOWN = """
SELECT id, txid, vout, address, amount_sat, sight, block_hash, conf_ref IS NOT NULL AS is_booked, holds, confs
  FROM bank.deposits d WHERE {which} ORDER BY id"""

_LOCK = """
SELECT FROM bank.deposits d
 WHERE d.id IN (SELECT s.id FROM unnest($1::text[], $2::int[]) o(txid, vout) JOIN bank.deposits s USING (txid, vout)
                UNION SELECT p.deposit_id FROM unnest($1::text[], $2::int[]) o(txid, vout)
                        JOIN bank.deposit_outpoints p USING (txid, vout)
                UNION SELECT r.id FROM bank.deposits r WHERE r.txid = ANY($3))
 ORDER BY d.id FOR UPDATE"""
"""All rows that a look can touch, in the order in which a page of deposits locks its own."""


async def list_unsettled_txids(conn: Connection, above: int) -> set[str]:
    """The transactions whose place may have changed.

    That is: mined above this height, or in a block that no look has followed, because the chain moved in the middle of
    one; in the mempool; or gone, and not given up in the books.
    """
    with translated():
        rows = await conn.fetch(
            """SELECT txid FROM bank.deposits
                WHERE block_height > $1::int - $2::int
                  AND (block_height > $1 OR block_hash <> ALL (ARRAY(
                       SELECT hash FROM bank.blocks WHERE height > $1::int - $2::int AND height <= $1)))
               UNION SELECT txid FROM bank.deposits
                      WHERE sight = 'mempool' OR (sight = 'gone' AND (conf_ref IS NOT NULL OR hold_ref IS NOT NULL))""",
            above,
            _DOUBTFUL,
        )
    return {row["txid"] for row in rows}


async def list_known_txids(conn: Connection, txids: Iterable[str]) -> set[str]:
    """Those of these transactions that a deposit has as its own."""
    with translated():
        rows = await conn.fetch("SELECT DISTINCT txid FROM bank.deposits WHERE txid = ANY($1)", list(txids))
    return {row["txid"] for row in rows}


async def record_in_tx(
    conn: Connection,
    outputs: Sequence[SeenOutput],
    watched: Sequence[Watched],
    *,
    rules: DepositRules,
    alone_at_most: int,
) -> int:
    """Write what was seen. Returns how many deposits are new. If those are many, they share their workflows."""
    await _lock_in_tx(conn, outputs, watched)
    known = await _find_known_in_tx(conn, outputs)
    past = await _find_past_in_tx(conn, [each for each in outputs if _key(each) not in known])
    alive = [each for each in outputs if _key(each) not in known and each.sight is not Sight.GONE]
    older = await _find_older(conn, alive)
    unknown = [each for each in alive if _key(each) not in older]
    rivals = await _find_rivals_in_tx(conn, unknown)
    replaced, new = _match(unknown, past, rivals)
    taken = {row.id for row, _output, _past in replaced}
    await _replace_in_tx(conn, replaced, rules)
    await _move_in_tx(
        conn,
        [
            (known[_key(each)], each.sight, each.block)
            for each in outputs
            if _key(each) in known and known[_key(each)].id not in taken
        ],
    )
    await _insert_in_tx(conn, new, rules, alone=len(new) <= alone_at_most)
    await _watch_in_tx(conn, watched, taken)
    return len(new)


async def _lock_in_tx(conn: Connection, outputs: Sequence[SeenOutput], watched: Sequence[Watched]) -> None:
    named = {txid for each in outputs for txid in each.conflicts} | {each.txid for each in watched}
    if outputs or named:
        with translated():
            await conn.fetch(_LOCK, *_columns(outputs), sorted(named))


def _match(
    unknown: Sequence[SeenOutput],
    past: Mapping[tuple[str, int], _Known],
    rivals: Mapping[tuple[str, str], Sequence[_Known]],
) -> tuple[list[_Replaced], list[tuple[SeenOutput, _Known | None]]]:
    """Which outputs take the place of a deposit, and which are new. One that is booked keeps its outpoint."""
    replaced: list[_Replaced] = []
    new: list[tuple[SeenOutput, _Known | None]] = []
    taken: set[DepositId] = set()
    for output in unknown:
        own = past.get(_key(output))
        candidates = [*([] if own is None else [own]), *_candidates(output, rivals)]
        row = next((each for each in candidates if not each.is_booked and each.id not in taken), None)
        if row is None:
            new.append((output, own))
        else:
            taken.add(row.id)
            replaced.append((row, output, own))
    return replaced, new


def _key(output: SeenOutput) -> tuple[str, int]:
    return output.outpoint.txid, output.outpoint.vout


async def _find_known_in_tx(conn: Connection, outputs: Sequence[SeenOutput]) -> dict[tuple[str, int], _Known]:
    which = "(txid, vout) IN (SELECT * FROM unnest($1::text[], $2::int[]))"
    rows = await _read_in_tx(conn, which, *_columns(outputs))
    return {(row.txid, row.vout): row for row in rows}


async def _find_past_in_tx(conn: Connection, outputs: Sequence[SeenOutput]) -> dict[tuple[str, int], _Known]:
    """The deposits that had these outpoints before another transaction took the place of theirs."""
    with translated():
        past = await conn.fetch(
            """SELECT txid, vout, deposit_id FROM bank.deposit_outpoints
                WHERE (txid, vout) IN (SELECT * FROM unnest($1::text[], $2::int[]))""",
            *_columns(outputs),
        )
    rows = {row.id: row for row in await _read_in_tx(conn, "id = ANY($1)", [each["deposit_id"] for each in past])}
    return {(each["txid"], each["vout"]): rows[each["deposit_id"]] for each in past}


async def _find_older(conn: Connection, outputs: Sequence[SeenOutput]) -> set[tuple[str, int]]:
    """Those that the wallet had received before it was adopted: capital, and no deposits. A rescan lists them again."""
    with translated():
        rows = await conn.fetch(
            """SELECT o.txid, o.vout
                 FROM unnest($1::text[], $2::int[], $3::text[], $4::int[]) o(txid, vout, address, height)
                WHERE EXISTS (SELECT FROM bank.coins c WHERE (c.txid, c.vout) = (o.txid, o.vout) AND c.opening)
                   OR (o.height <= (SELECT min(adopted_height) FROM bank.chains)
                       AND NOT EXISTS (SELECT FROM bank.addresses a WHERE a.address = o.address))""",
            *_columns(outputs),
            [each.address for each in outputs],
            [None if each.block is None else each.block.height for each in outputs],
        )
    return {(row["txid"], row["vout"]) for row in rows}


async def _find_rivals_in_tx(
    conn: Connection, outputs: Sequence[SeenOutput]
) -> Mapping[tuple[str, str], Sequence[_Known]]:
    """The deposits whose transactions spend the same inputs, by transaction and address. None of them is alive."""
    rivals: dict[tuple[str, str], list[_Known]] = {}
    if txids := sorted({txid for each in outputs for txid in each.conflicts}):
        for row in await _read_in_tx(conn, "txid = ANY($1)", txids):
            rivals.setdefault((row.txid, row.address), []).append(row)
    return rivals


def _candidates(output: SeenOutput, rivals: Mapping[tuple[str, str], Sequence[_Known]]) -> list[_Known]:
    """The deposits whose place this output may take. Of several to one address, the one with the same amount first."""
    found = [row for txid in output.conflicts for row in rivals.get((txid, output.address), ())]
    return sorted(found, key=lambda row: (row.amount_sat != output.amount_sat, row.vout != output.outpoint.vout))


async def _read_in_tx(conn: Connection, which: str, *values: object) -> list[_Known]:
    with translated():
        return [_Known(**row) for row in await conn.fetch(_KNOWN.format(which=which), *values)]


async def _move_in_tx(conn: Connection, seen: Sequence[tuple[_Known, Sight, Block | None]]) -> None:
    """Write the places that have changed."""
    moved = [
        (row, sight, block)
        for row, sight, block in seen
        if (row.sight, row.block_hash) != (sight, None if block is None else block.hash)
    ]
    await change_rows(
        conn,
        len(moved),
        """UPDATE bank.deposits d SET sight = m.sight, block_height = m.height, block_hash = m.hash
             FROM unnest($1::text[], $2::text[], $3::int[], $4::text[]) m(id, sight, height, hash) WHERE d.id = m.id""",
        [row.id for row, _sight, _block in moved],
        [str(sight) for _row, sight, _block in moved],
        *_of_blocks([block for _row, _sight, block in moved]),
    )


async def _watch_in_tx(conn: Connection, watched: Sequence[Watched], taken: set[DepositId]) -> None:
    places = {each.txid: each for each in watched}
    rows = await _read_in_tx(conn, "txid = ANY($1) AND id <> ALL($2)", list(places), sorted(taken))
    await _move_in_tx(conn, [(row, places[Txid(row.txid)].sight, places[Txid(row.txid)].block) for row in rows])


async def _replace_in_tx(conn: Connection, replaced: Sequence[_Replaced], rules: DepositRules) -> None:
    """Move the rows to their new outpoints, and keep the old ones: they may come back.

    Where another deposit had the outpoint, its postings are counted on: their references are taken.
    """
    if not replaced:
        return
    await change_any(
        conn,
        """INSERT INTO bank.deposit_outpoints(txid, vout, deposit_id, amount_sat)
           SELECT txid, vout, id, amount_sat FROM bank.deposits WHERE id = ANY($1)
           ON CONFLICT (txid, vout) DO UPDATE SET deposit_id = excluded.deposit_id, replaced_at = clock_timestamp()""",
        [row.id for row, _output, _past in replaced],
    )
    outputs = [output for _row, output, _past in replaced]
    await change_rows(
        conn,
        len(replaced),
        """UPDATE bank.deposits d SET txid = r.txid, vout = r.vout, amount_sat = r.amount_sat, required = r.required,
               deep = r.deep, below_minimum = r.below AND d.wallet_id IS NOT NULL, sight = r.sight,
               block_height = r.height, block_hash = r.hash, holds = GREATEST(d.holds, r.holds),
               confs = GREATEST(d.confs, r.confs),
               status = CASE WHEN d.status IN ('pending', 'below_minimum')
                             THEN CASE WHEN r.below AND d.wallet_id IS NOT NULL THEN 'below_minimum' ELSE 'pending' END
                             ELSE d.status END
          FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[], $5::int[], $6::int[], $7::boolean[], $8::text[],
                      $9::int[], $10::text[], $11::int[], $12::int[])
               r(id, txid, vout, amount_sat, required, deep, below, sight, height, hash, holds, confs)
         WHERE d.id = r.id""",
        [row.id for row, _output, _past in replaced],
        *_columns(outputs),
        [output.amount_sat for output in outputs],
        *_by_rules(outputs, rules),
        [str(output.sight) for output in outputs],
        *_of_blocks([output.block for output in outputs]),
        [0 if past is None or past.id == row.id else past.holds + 1 for row, _output, past in replaced],
        [0 if past is None else past.confs for _row, _output, past in replaced],
    )


async def _insert_in_tx(
    conn: Connection, new: Sequence[tuple[SeenOutput, _Known | None]], rules: DepositRules, *, alone: bool
) -> None:
    """New rows. One whose outpoint another deposit had counts its postings on: their references are taken."""
    if not new:
        return
    outputs = [output for output, _past in new]
    await change_rows(
        conn,
        len(new),
        """INSERT INTO bank.deposits(id, txid, vout, address, amount_sat, required, deep, below_minimum, sight,
               block_height, block_hash, coinbase, holds, confs, workflow_id, alone, wallet_id, account_id, status)
           SELECT n.id, n.txid, n.vout, n.address, n.amount_sat, n.required, n.deep,
                  n.below AND o.wallet_id IS NOT NULL, n.sight, n.height, n.hash, n.coinbase, n.holds, n.confs,
                  n.workflow_id, $15, o.wallet_id, o.account_id,
                  CASE WHEN n.below AND o.wallet_id IS NOT NULL THEN 'below_minimum' ELSE 'pending' END
             FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::bigint[], $6::int[], $7::int[],
                         $8::boolean[], $9::text[], $10::int[], $11::text[], $12::boolean[], $13::int[], $14::int[],
                         $16::text[])
                  n(id, txid, vout, address, amount_sat, required, deep, below, sight, height, hash, coinbase, holds,
                    confs, workflow_id)
             LEFT JOIN bank.addresses o ON o.address = n.address""",
        [new_id("dep") for _each in new],
        *_columns(outputs),
        [output.address for output in outputs],
        [output.amount_sat for output in outputs],
        *_by_rules(outputs, rules),
        [str(output.sight) for output in outputs],
        *_of_blocks([output.block for output in outputs]),
        [output.coinbase for output in outputs],
        [0 if past is None else past.holds for _output, past in new],
        [0 if past is None else past.confs for _output, past in new],
        alone,
        [output.workflow_id for output in outputs],
    )
    await change_any(
        conn,
        "UPDATE bank.addresses SET paid = true WHERE address = ANY($1) AND NOT paid AND wallet_id IS NOT NULL",
        sorted({output.address for output in outputs}),
    )


def _columns(outputs: Sequence[SeenOutput]) -> tuple[list[str], list[int]]:
    return [each.outpoint.txid for each in outputs], [each.outpoint.vout for each in outputs]


def _by_rules(outputs: Sequence[SeenOutput], rules: DepositRules) -> tuple[list[int], list[int], list[bool]]:
    """Required confirmations, the depth until which it is watched, and whether it is below the minimum."""
    required = [rules.required(each.amount_sat, coinbase=each.coinbase) for each in outputs]
    return (
        required,
        [rules.watched_until(each) for each in required],
        [each.amount_sat < rules.minimum_sat for each in outputs],
    )


def _of_blocks(blocks: Sequence[Block | None]) -> tuple[list[int | None], list[str | None]]:
    return [None if each is None else each.height for each in blocks], [
        None if each is None else each.hash for each in blocks
    ]
