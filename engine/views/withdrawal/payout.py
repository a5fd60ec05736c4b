"""Payouts as operators read them: a page of them, and the whole story of one.

The story has every version with its bytes, whose money each coin descends from, and what each member pays. Its lists
are bounded: a payout has at most 500 members, and a version at most 1,000 inputs.
"""

from dataclasses import dataclass
from typing import Any

from engine.ledger.database import Connection, translated
from engine.views.page import Listing
from engine.views.withdrawal.withdrawal import IN_FORCE

MOST_VERSIONS = 30
"""The newest ones. By rule a payout has far fewer; further ones are an operator's."""
_COLUMNS = """p.id, p.wallet, p.kind, p.speed, p.alone, p.unlinked, p.status, p.parent_id, p.estimate, p.on_hold,
    p.problem, p.fee_booked_sat, p.bump_to_sat_kvb, p.confirmed_version, p.block_height, p.workflow_id, p.created_at,
    p.broadcast_at, p.confirmed_at, p.final_at, f.number AS version, f.txid, f.rate_sat_kvb, f.fee_sat, f.weight,
    m.members, m.paid_sat, m.shares_sat,
    (SELECT tip_height FROM bank.chains c WHERE c.wallet = p.wallet) AS tip_height"""
# Before anything was sent, the plan is its newest version.
_SOURCE = f"""bank.payouts p
    LEFT JOIN LATERAL (SELECT v.number FROM {IN_FORCE}) s ON true
    LEFT JOIN LATERAL (SELECT * FROM bank.payout_versions v WHERE v.payout_id = p.id
         AND v.number = coalesce(s.number, (SELECT max(number) FROM bank.payout_versions n WHERE n.payout_id = p.id))) f
      ON true
    CROSS JOIN LATERAL (SELECT count(*) AS members, coalesce(sum(w.paid_sat), 0)::bigint AS paid_sat,
         coalesce(sum(w.miner_fee_sat), 0)::bigint AS shares_sat FROM bank.withdrawals w WHERE w.payout_id = p.id) m"""  # noqa: S608 - constant
PAYOUTS = Listing(
    columns=_COLUMNS,
    source=_SOURCE,
    condition="""($1::text IS NULL OR p.status = $1) AND ($2::text IS NULL OR p.speed = $2)
        AND (NOT $3::boolean OR p.problem IS NOT NULL OR p.on_hold)""",
    time="p.created_at",
    key="p.id",
)
"""Of a status and a speed, or of all; `$3`: only those that wait for an operator."""

_VERSIONS = """
SELECT number, kind, rate_sat_kvb, fee_sat, weight, change_sat, change_vout, change_address, psbt, raw, txid, refused,
       created_at, signed_at, broadcast_at
  FROM bank.payout_versions WHERE payout_id = $1 ORDER BY number DESC LIMIT $2"""
_INPUTS = """
SELECT i.number, i.place, i.txid, i.vout, i.amount_sat, c.address, coalesce(c.change, false) AS change,
       coalesce(c.opening, false) AS opening, c.block_height, c.spent_by,
       EXISTS (SELECT FROM bank.coin_reservations r WHERE (r.txid, r.vout) = (i.txid, i.vout) AND r.payout_id = $1)
         AS reserved,
       ARRAY(SELECT o.account_id FROM bank.coin_origins o WHERE (o.txid, o.vout) = (i.txid, i.vout)
              ORDER BY o.account_id LIMIT 1000) AS origins
  FROM bank.payout_inputs i LEFT JOIN bank.coins c ON (c.txid, c.vout) = (i.txid, i.vout)
 WHERE i.payout_id = $1 AND i.number = ANY($2) ORDER BY i.number DESC, i.place"""
_MEMBERS = """
SELECT id, account_id, wallet_id, place, address, amount_sat, paid_sat, miner_fee_sat, service_fee_msat, held_msat,
       status
  FROM bank.withdrawals WHERE payout_id = $1 ORDER BY place"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutStory:
    """A payout with all that is known of it. Versions newest first, with their inputs in order."""

    payout: dict[str, Any]
    versions: list[dict[str, Any]]
    members: list[dict[str, Any]]
    children: list[str]


async def find_payout(conn: Connection, payout_id: str) -> dict[str, Any] | None:
    """The payout, as in a list."""
    with translated():
        row = await conn.fetchrow(f"SELECT {_COLUMNS} FROM {_SOURCE} WHERE p.id = $1", payout_id)  # noqa: S608 - constants
    return None if row is None else dict(row)


async def find_payout_story(conn: Connection, payout_id: str) -> PayoutStory | None:
    """The story, in one snapshot."""
    with translated():
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            found = await find_payout(conn, payout_id)
            if found is None:
                return None
            versions = [dict(each) for each in await conn.fetch(_VERSIONS, payout_id, MOST_VERSIONS)]
            inputs = await conn.fetch(_INPUTS, payout_id, [each["number"] for each in versions])
            members = await conn.fetch(_MEMBERS, payout_id)
            children = await conn.fetch(
                "SELECT id FROM bank.payouts WHERE parent_id = $1 ORDER BY created_at, id LIMIT 100", payout_id
            )
    for version in versions:
        version["inputs"] = [_without_number(each) for each in inputs if each["number"] == version["number"]]
    return PayoutStory(
        payout=found,
        versions=versions,
        members=[dict(each) for each in members],
        children=[each["id"] for each in children],
    )


def _without_number(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a record of asyncpg
    return {name: value for name, value in row.items() if name != "number"}
