"""What the books have of a payout: sent, with its members; and the fee of the version that is in force."""

from dataclasses import replace

from activities.payout.story import Step, Story
from engine.bank.withdrawal import member, payout, version
from engine.domain.errors import InvariantBroken
from engine.domain.ids import Txid, WithdrawalId
from engine.domain.money import Sat
from engine.ledger.chart import Chart
from engine.ledger.database import Connection, Pool, transaction
from engine.ledger.postings.payout import PaidMember, Sent, broadcast, broadcast_ref, fee_changed
from engine.ledger.store import post_new_in_tx


async def book(pool: Pool, ids: Chart, story: Story) -> None:
    """Post what is missing: the payout itself, then the fee of the version in force. A repeat finds it posted.

    What is missing is read again under the lock: a call that comes late must not book the fee of an old version.
    """
    async with transaction(pool) as conn:
        row = await payout.get_row_in_tx(conn, story.payout.id)
        story = replace(story, payout=row, versions=await version.list_versions(conn, row.id))
        if story.step is not Step.BOOK:
            return
        of = story.in_force
        if row.booked_ref is None:
            row_fee_sat = await _book_sent_in_tx(conn, ids, story, of)
            bookings = 0
        else:
            row_fee_sat, bookings = row.fee_booked_sat, row.bookings
        if row_fee_sat != of.fee_sat:
            posting = fee_changed(await ids.load(conn), _sent(story, of), booked_sat=row_fee_sat, number=bookings + 1)
            await post_new_in_tx(conn, posting)
            await payout.book_fee_in_tx(conn, row.id, number=bookings + 1, fee_sat=of.fee_sat)
        await set_vouts_in_tx(conn, story, of)


async def set_vouts_in_tx(conn: Connection, story: Story, of: version.VersionRow) -> None:
    """Write which output of this version pays each member."""
    vouts = {WithdrawalId(each): vout for each, vout in story.vouts(of).items()}
    if vouts:
        await member.set_vouts_in_tx(conn, story.payout.id, vouts)


async def _book_sent_in_tx(conn: Connection, ids: Chart, story: Story, of: version.VersionRow) -> Sat:
    """Returns the fee that it is booked with: the sum of the shares, or of a payout without members its own."""
    paid = [
        PaidMember(
            withdrawal=each,
            payer=each.ledger_account_id,
            paid_sat=each.paid_sat,
            miner_fee_sat=each.miner_fee_sat,
            takes_all=each.takes_all,
        )
        for each in story.members
    ]
    fee_sat = Sat(sum(each.miner_fee_sat for each in story.members)) if paid else of.fee_sat
    sent = _sent(story, of, fee_sat)
    await post_new_in_tx(conn, broadcast(await ids.load(conn), sent, paid))
    await payout.mark_broadcast_in_tx(conn, story.payout.id, ref=broadcast_ref(story.payout.id), fee_sat=fee_sat)
    await member.mark_broadcast_in_tx(conn, story.payout.id, len(story.members))
    return fee_sat


def _sent(story: Story, of: version.VersionRow, fee_sat: Sat | None = None) -> Sent:
    if of.txid is None:
        raise InvariantBroken(f"{story.payout.id}: version {of.number} is not signed")
    return Sent(
        id=story.payout.id,
        txid=Txid(of.txid),
        fee_sat=of.fee_sat if fee_sat is None else fee_sat,
        workflow_id=story.payout.workflow_id,
    )
