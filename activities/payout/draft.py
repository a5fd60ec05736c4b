"""The unsigned transaction of a version: change to a fresh address, each member's output at its place, stored at once.

Nothing of it is known to anybody yet. When a coin of the first version has been spent by hand meanwhile, the payout is
dissolved: its members go back into the queue, and other coins are chosen. The coins are locked in the node as well, so
that no hand at the wallet spends them by accident. Whoever freezes one at the node after it was planned is too late: it
is this payout's, and an operator who wants to stop it holds the payout.

The node says before anything is signed whether it relays the outputs. A member whose output it does not take fails, and
the others are planned again without him.
"""

from collections.abc import Mapping, Sequence

from activities.payout.refused import members_refused
from activities.payout.story import Story
from activities.withdrawal.ending import OUTPUT_REFUSED, fail_in_tx
from engine.bank.chain.coin import forget_origins_in_tx
from engine.bank.withdrawal import coin, payout, queue, version
from engine.bank.withdrawal.withdrawal import get_row_in_tx
from engine.clients.bitcoind.spending import Spending
from engine.domain.deposit import Outpoint
from engine.domain.errors import InvariantBroken
from engine.domain.ids import WithdrawalId
from engine.domain.money import Sat
from engine.domain.withdrawal.script import output_script
from engine.domain.withdrawal.withdrawal import PayoutStatus
from engine.ledger.database import Pool, transaction

_LINKED = "coins that have nothing to do with you: those that were chosen had, as the chain has shown"


def outputs_of(story: Story, of: version.VersionRow, change_address: str | None) -> list[tuple[bytes, Sat]]:
    """What the transaction pays, in order: members by their places, the change where the plan has put it."""
    outputs = [(each.script, each.paid_sat) for each in story.members]
    if of.change_vout is not None and change_address is not None:
        outputs.insert(of.change_vout, (output_script(change_address), of.change_sat))
    return outputs


async def draft(pool: Pool, spending: Spending, story: Story) -> None:
    """Store the unsigned transaction of the current version. A repeat finds it stored."""
    of = story.current
    inputs = [each.outpoint for each in of.inputs]
    if story.payout.status is PayoutStatus.PLANNED and len(await spending.unspent(inputs)) < len(inputs):
        await dissolve(pool, spending, story)
        return
    if story.payout.status is PayoutStatus.PLANNED and (refused := await members_refused(spending, story)):
        await dissolve(pool, spending, story, refused)
        return
    if not await _lock(pool, spending, story):
        return
    address = of.change_address
    if of.change_sat and address is None:
        address = await spending.change_address()
    psbt = await spending.create_psbt(inputs, outputs_of(story, of, address))
    async with transaction(pool) as conn:
        await payout.lock_in_tx(conn, of.payout_id)
        stored = next(each for each in await version.list_versions(conn, of.payout_id) if each.number == of.number)
        if stored.psbt is None:
            await version.set_draft_in_tx(conn, of.payout_id, of.number, psbt=psbt, change_address=address)


async def _lock(pool: Pool, spending: Spending, story: Story) -> bool:
    """Lock the coins while nobody can end the payout: afterwards nobody would unlock them. False: it has ended."""
    async with transaction(pool) as conn:
        row = await payout.get_row_in_tx(conn, story.payout.id)
        if row.status in (PayoutStatus.FINAL, PayoutStatus.DISSOLVED):
            return False
        await spending.lock(each.outpoint for each in story.current.inputs)
    return True


async def dissolve(
    pool: Pool,
    spending: Spending,
    story: Story,
    refused: Mapping[WithdrawalId, str] | None = None,
    linked: Sequence[Outpoint] = (),
) -> None:
    """Put the members of a payout, of which nothing is signed, back into the queue. A repeat changes nothing.

    Those of `refused` fail instead, with what the node says about their outputs. The origin of coins that were `linked`
    to a member counts as unknown from now on.
    """
    async with transaction(pool) as conn:
        row = await payout.get_row_in_tx(conn, story.payout.id)
        if row.status is not PayoutStatus.PLANNED:
            return
        given_back = await queue.give_back_in_tx(conn, row.id)
        if len(given_back) != len(story.members):
            raise InvariantBroken(f"{row.id}: {len(given_back)} of {len(story.members)} members can be given back")
        words = refused or {}
        failing = [await get_row_in_tx(conn, each) for each in sorted(words)]
        for each in sorted(failing, key=lambda one: one.ledger_account_id):  # as all who lock several balances
            detail = f"The node does not relay its output: {words[each.id]}"
            await fail_in_tx(conn, each, code=OUTPUT_REFUSED, detail=detail)
        if linked:
            await forget_origins_in_tx(conn, linked)
            await queue.note_waits_in_tx(conn, dict.fromkeys(given_back, _LINKED))
        await payout.mark_dissolved_in_tx(conn, row.id, coins_gone=not (refused or linked))
        await coin.release_in_tx(conn, row.id)
        await spending.unlock(each.outpoint for each in story.current.inputs)  # nobody would after the commit
