"""The end of a payout without members that no block can take. Nobody is owed anything, so it is not built again.

    child            another version of its parent lies deep, so its coin never exists; or what spends its coin does
    consolidation    what spends its coins, or has taken them, lies deep; the rule may join the others again

The books take its fee back.
"""

from activities.payout.remaining import are_dead
from activities.payout.story import Story
from engine.bank.withdrawal import coin, payout, version
from engine.clients.bitcoind.spending import Spending
from engine.domain.ids import Txid
from engine.domain.money import Sat
from engine.domain.withdrawal.withdrawal import PayoutStatus
from engine.ledger.chart import Chart
from engine.ledger.database import Pool, borrowed, transaction
from engine.ledger.postings.payout import Sent, fee_changed
from engine.ledger.store import post_new_in_tx


async def end_if_dead(pool: Pool, ids: Chart, spending: Spending, story: Story) -> None:
    """End it when none of its versions can ever be confirmed. Else it waits. A repeat finds it ended."""
    row = story.payout
    if not await are_dead(pool, spending, story) and not await _has_lost_its_coin(pool, story):
        return
    async with transaction(pool) as conn:
        now = await payout.get_row_in_tx(conn, row.id)
        versions = await version.list_versions(conn, row.id)
        is_as_read = [(each.number, each.txid) for each in versions] == [
            (each.number, each.txid) for each in story.versions
        ]
        if now.status not in (PayoutStatus.SIGNED, PayoutStatus.BROADCAST) or not is_as_read:
            return
        of = story.in_force
        if now.fee_booked_sat and of.txid is not None:
            sent = Sent(id=row.id, txid=Txid(of.txid), fee_sat=Sat(0), workflow_id=row.workflow_id)
            posting = fee_changed(await ids.load(conn), sent, booked_sat=now.fee_booked_sat, number=now.bookings + 1)
            await post_new_in_tx(conn, posting)
        reserved = await coin.list_reserved(conn, row.id)
        await payout.mark_dead_in_tx(conn, row.id)
        await coin.release_in_tx(conn, row.id)
        await spending.unlock(reserved)  # nobody would after the commit


async def _has_lost_its_coin(pool: Pool, story: Story) -> bool:
    """Whether its parent is final without the version whose change it spends; the wallet may not know that version."""
    parent_id = story.payout.parent_id
    if parent_id is None:
        return False
    async with borrowed(pool) as conn:
        parent, versions = await payout.find_row(conn, parent_id), await version.list_versions(conn, parent_id)
    if parent is None or parent.status is not PayoutStatus.FINAL:
        return False
    confirmed = {each.txid for each in versions if each.number == parent.confirmed_version}
    return not confirmed & {each.outpoint.txid for each in story.current.inputs}
