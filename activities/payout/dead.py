"""The end of a child that no block can take: another version of its parent lies deep, so its coin never exists.

The books take its fee back.
"""

from activities.payout.story import Story
from engine.bank.withdrawal import coin, payout
from engine.domain.ids import Txid
from engine.domain.money import Sat
from engine.domain.withdrawal.withdrawal import PayoutStatus
from engine.ledger.chart import Chart
from engine.ledger.database import Pool, transaction
from engine.ledger.postings.payout import Sent, fee_changed
from engine.ledger.store import post_new_in_tx


async def end_if_dead(pool: Pool, ids: Chart, story: Story) -> None:
    """End a child whose coin can never exist, because another version of its parent lies deep. Else it waits."""
    row = story.payout
    async with transaction(pool) as conn:
        now = await payout.get_row_in_tx(conn, row.id)
        parent = None if row.parent_id is None else await payout.find_row(conn, row.parent_id)
        if parent is None or parent.status is not PayoutStatus.FINAL or now.status is PayoutStatus.DISSOLVED:
            return
        of = story.in_force
        if now.fee_booked_sat and of.txid is not None:
            sent = Sent(id=row.id, txid=Txid(of.txid), fee_sat=Sat(0), workflow_id=row.workflow_id)
            posting = fee_changed(await ids.load(conn), sent, booked_sat=now.fee_booked_sat, number=now.bookings + 1)
            await post_new_in_tx(conn, posting)
        await payout.mark_dead_in_tx(conn, row.id)
        await coin.release_in_tx(conn, row.id)
