"""Gives the stored bytes of a version to the node, and acts by its verdict. A repeat sends the same bytes.

accepted, confirmed     written down; the books follow
an input is missing     what it was spent by decides (`replace.rebuild`)
below the floor         a version that pays what the node asks now
outbid                  by another version of ours: that one is waited for. By a stranger's: an operator is told
anything else           told to an operator, and tried again
"""

from dataclasses import replace

from activities.payout.story import Story
from engine.bank.withdrawal import payout, version
from engine.clients.bitcoind.spending import Spending
from engine.clients.bitcoind.verdict import Fate, Refusal, Verdict
from engine.domain.errors import InvariantBroken
from engine.domain.ids import Txid
from engine.domain.withdrawal.withdrawal import PayoutKind, PayoutStatus
from engine.ledger.database import Pool, transaction


async def send(pool: Pool, spending: Spending, story: Story, of: version.VersionRow) -> Verdict:
    """Send the version and store what the node says. Raises Unavailable with the outcome open: repeat it.

    What the node says of a version that is not the current one any more is no news for operators.
    """
    if of.raw is None:
        raise InvariantBroken(f"{of.payout_id}: version {of.number} is not signed")
    verdict = await spending.broadcast(of.raw)
    if verdict.refusal is Refusal.OUTBID and await fall_back(pool, spending, story):
        return verdict
    async with transaction(pool) as conn:
        row = await payout.get_row_in_tx(conn, of.payout_id)
        if verdict.is_known:
            await version.mark_broadcast_in_tx(conn, of.payout_id, of.number)
        now = replace(story, payout=row, versions=await version.list_versions(conn, row.id))
        if now.current.number == of.number and row.status in (PayoutStatus.SIGNED, PayoutStatus.BROADCAST):
            await payout.note_problem_in_tx(conn, row.id, _problem(story, verdict))
    return verdict


async def note_sent(pool: Pool, of: version.VersionRow) -> None:
    """Write down that the node has this version. A repeat keeps the first time."""
    async with transaction(pool) as conn:
        await payout.lock_in_tx(conn, of.payout_id)
        await version.mark_broadcast_in_tx(conn, of.payout_id, of.number)


async def fall_back(pool: Pool, spending: Spending, story: Story) -> bool:
    """Give the current version up for an earlier one that is in the mempool or in a block. False: none is."""
    current = story.current
    for each in story.signed:
        if each.number == current.number or each.txid is None:
            continue
        if await _is_there(spending, Txid(each.txid)):
            async with transaction(pool) as conn:
                await payout.lock_in_tx(conn, current.payout_id)
                await version.note_refused_in_tx(conn, current.payout_id, current.number, "another version is in force")
                await version.mark_broadcast_in_tx(conn, each.payout_id, each.number)
                await payout.note_problem_in_tx(conn, current.payout_id, None)
            return True
    return False


async def _is_there(spending: Spending, txid: Txid) -> bool:
    if await spending.mempool_entry(txid) is not None:
        return True
    known = await spending.transaction(txid)
    return known is not None and known.confirmations > 0


def _problem(story: Story, verdict: Verdict) -> str | None:
    """Why an operator should look. A child without its coin waits for its parent, and nobody can help it."""
    if verdict.is_known:
        return None
    if verdict.fate is Fate.MISSING_INPUTS:
        if story.payout.kind is PayoutKind.CHILD:
            return None
        if story.payout.kind is PayoutKind.CONSOLIDATION:
            return "one of its coins is spent or gone; it ends as soon as that is final"
        return "one of its coins is spent or gone; it is built again as soon as that is safe"
    return f"the node does not take it ({verdict.refusal}): {verdict.words}"
