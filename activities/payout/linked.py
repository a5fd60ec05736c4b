"""Coins of an unlinked payout that have to do with a member after all: found on the chain, and given up.

The books have chosen them as unlinked. So their origin counts as unknown from now on, and others are chosen.
"""

from collections.abc import Iterable, Sequence

from activities.payout.draft import dissolve
from activities.payout.story import Story
from engine.bank.chain.coin import forget_origins_in_tx
from engine.bank.withdrawal import ancestry, payout, version
from engine.clients.bitcoind.spending import Spending
from engine.domain.deposit import Outpoint
from engine.domain.ids import AccountId
from engine.domain.withdrawal.withdrawal import PayoutStatus
from engine.ledger.database import Pool, borrowed, transaction

_WHY = "a coin has to do with a member, or the wallet cannot tell where it comes from"


async def linked_inputs(pool: Pool, spending: Spending, story: Story) -> list[Outpoint]:
    """The inputs of the current version whose ancestry leads to a member, or cannot be walked. Raises Unavailable."""
    inputs = [each.outpoint for each in story.current.inputs]
    accounts = {each.account_id for each in story.members}
    if not await _is_linked(pool, spending, inputs, accounts):
        return []
    found = [each for each in inputs if await _is_linked(pool, spending, [each], accounts)]
    return found or inputs


async def give_up(pool: Pool, spending: Spending, story: Story, linked: Sequence[Outpoint]) -> None:
    """Sign nothing of it. A first version is dissolved and its members wait for other coins; a later one is left out.

    A repeat changes nothing.
    """
    if story.payout.status is PayoutStatus.PLANNED:
        await dissolve(pool, spending, story, linked=linked)
        return
    of = story.current
    async with transaction(pool) as conn:
        await payout.lock_in_tx(conn, of.payout_id)
        await forget_origins_in_tx(conn, linked)
        await version.note_refused_in_tx(conn, of.payout_id, of.number, _WHY)
        await payout.note_problem_in_tx(conn, of.payout_id, f"version {of.number} is not signed: {_WHY}")


async def _is_linked(pool: Pool, spending: Spending, inputs: Iterable[Outpoint], accounts: Iterable[AccountId]) -> bool:
    lineage = await spending.walk_ancestors(inputs)
    if lineage is None:
        return True
    async with borrowed(pool) as conn:
        return bool(await ancestry.list_linked(conn, lineage, set(accounts)))
