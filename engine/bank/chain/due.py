"""Deposits about which the books must do something now: `engine/domain/deposit.py:next_step`, as a query.

A property test holds the two against each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.domain.ids import AccountId, DepositId, Txid
from engine.domain.money import Sat
from engine.ledger.database import Connection, change_any, translated

WATCHED = """((d.final_at IS NULL AND d.status <> 'dropped') OR (d.conf_ref IS NOT NULL AND d.sight <> 'mined')
    OR (d.status = 'dropped' AND d.sight <> 'gone'))"""
"""The condition of the index `deposits_watched`."""

IS_DUE = """CASE
    WHEN d.conf_ref IS NOT NULL AND (d.sight <> 'mined' OR NOT starts_with(d.conf_ref, {outpoint})) THEN true
    WHEN d.conf_ref IS NOT NULL THEN d.final_at IS NULL AND {depth} >= d.deep
    WHEN d.hold_ref IS NOT NULL AND NOT starts_with(d.hold_ref, {outpoint}) THEN true
    WHEN d.sight = 'gone' THEN d.hold_ref IS NOT NULL OR d.status NOT IN ('dropped', 'reversed')
    WHEN d.sight = 'mined' AND {depth} >= d.required THEN true
    ELSE d.status = 'dropped' OR (d.hold_ref IS NULL AND d.wallet_id IS NOT NULL AND NOT d.below_minimum)
    END""".replace("{depth}", "$1 - d.block_height + 1").replace("{outpoint}", "format('chain:%s:%s:', d.txid, d.vout)")


_OF_ONE_KIND = f"""(
    SELECT d.id, d.txid, d.amount_sat, d.account_id, d.workflow_id, d.alone,
           concat_ws(' ', d.txid, d.vout, d.sight, d.block_hash, d.hold_ref, d.conf_ref) AS state
      FROM bank.deposits d WHERE {WATCHED} AND {IS_DUE} AND {{kind}} ORDER BY d.created_at, d.id LIMIT {{most}})"""  # noqa: S608 - constant

_DUE = (
    f"{_OF_ONE_KIND.format(kind='d.alone', most='$2')} UNION ALL {_OF_ONE_KIND.format(kind='NOT d.alone', most='$3')}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A deposit that must be moved on, and the facts of its workflow."""

    id: DepositId
    txid: Txid
    amount_sat: Sat
    account_id: AccountId | None
    workflow_id: str
    alone: bool
    state: str
    """What the chain shows and what is booked: a workflow that was told of another state must be told again."""


async def list_due(conn: Connection, tip_height: int, limit: int, shared_limit: int | None = None) -> list[Due]:
    """The deposits whose next step is due at this tip, the oldest first: those alone, then those that share workflows.

    At most `limit` of each kind, or `shared_limit` of the second.
    """
    with translated():
        rows = await conn.fetch(
            _DUE,
            tip_height,
            limit,
            limit if shared_limit is None else shared_limit,
        )
    return [Due(**row) for row in rows]


async def finish_shared_in_tx(conn: Connection, tip_height: int) -> None:
    """Leave alone the booked deposits that lie deep, of those that share their workflows. Locks them by their ids."""
    await change_any(
        conn,
        """UPDATE bank.deposits SET final_at = clock_timestamp()
            WHERE id IN (SELECT id FROM bank.deposits
                          WHERE final_at IS NULL AND status <> 'dropped' AND conf_ref IS NOT NULL AND sight = 'mined'
                            AND NOT alone AND $1 - block_height + 1 >= deep
                          ORDER BY id FOR UPDATE)""",
        tip_height,
    )


async def find_due(conn: Connection, deposits: Sequence[DepositId], tip_height: int) -> set[DepositId]:
    """Those of these deposits whose next step is due."""
    with translated():
        rows = await conn.fetch(
            f"SELECT d.id FROM bank.deposits d WHERE d.id = ANY($2) AND {WATCHED} AND {IS_DUE}",  # noqa: S608 - constant
            tip_height,
            list(deposits),
        )
    return {DepositId(row["id"]) for row in rows}
