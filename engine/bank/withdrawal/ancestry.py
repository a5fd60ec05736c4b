"""Whether coins have to do with certain accounts, by an ancestry that was walked on the chain."""

from collections.abc import Collection

from engine.domain.deposit import Outpoint
from engine.domain.ids import AccountId, Txid
from engine.ledger.database import Reader, translated


async def list_linked(conn: Reader, lineage: Collection[Outpoint], accounts: Collection[AccountId]) -> list[Outpoint]:
    """Those of these outputs that were paid to one of the accounts, or to nobody known, who may be anybody.

    Outputs of a payout that has paid one of them count too: who knows the withdrawal sees the change beside it.
    """
    listed = sorted(lineage, key=str)
    with translated():
        rows = await conn.fetch(
            """SELECT l.txid, l.vout FROM unnest($1::text[], $2::int[]) l(txid, vout)
                 LEFT JOIN bank.deposits d ON d.txid = l.txid AND d.vout = l.vout
                 LEFT JOIN bank.coins c ON c.txid = l.txid AND c.vout = l.vout
                 LEFT JOIN bank.addresses a ON a.address = c.address
                WHERE (d.id IS NOT NULL AND d.account_id IS NULL) OR d.account_id = ANY($3)
                   OR (a.account_id = ANY($3) AND NOT c.opening)
                   OR EXISTS (SELECT FROM bank.payout_versions v JOIN bank.withdrawals w USING (payout_id)
                               WHERE v.txid = l.txid AND w.account_id = ANY($3))""",
            [each.txid for each in listed],
            [each.vout for each in listed],
            sorted(accounts),
        )
    return [Outpoint(txid=Txid(row["txid"]), vout=row["vout"]) for row in rows]
