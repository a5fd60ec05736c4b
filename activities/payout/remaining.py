"""With which inputs a version may be built again when one of its inputs is gone, so that no payee is paid twice.

Every version that anybody may have must be impossible, or share an input with the new one. A version is impossible when
one of its inputs is spent by a transaction that is none of ours, or comes from one that lost its own inputs, as deep in
the chain as the rule says.
"""

from activities.payout.story import Story
from engine.bank.withdrawal import coin, version
from engine.clients.bitcoind.spending import Spending
from engine.domain.ids import Txid
from engine.ledger.database import Pool, borrowed


async def inputs_that_remain(pool: Pool, spending: Spending, story: Story) -> list[version.Input] | None:
    """The inputs with which the current version can be built again without a second payment; None: not safely yet.

    None also when all of them are there: then the same bytes can be sent again.
    """
    current = story.current
    outpoints = [each.outpoint for each in current.inputs]
    there = await spending.unspent(outpoints) | await spending.unspent(outpoints, mempool=False)
    remaining = [each for each in current.inputs if each.outpoint in there]
    if len(remaining) == len(current.inputs):
        return None
    kept = {each.outpoint for each in remaining}
    for each in story.signed:
        if not kept.intersection(one.outpoint for one in each.inputs) and not await _is_dead(
            pool, spending, story, each
        ):
            return None
    return remaining


async def are_dead(pool: Pool, spending: Spending, story: Story) -> bool:
    """Whether none of its signed versions can ever be confirmed."""
    for each in story.signed:
        if not await _is_dead(pool, spending, story, each):
            return False
    return bool(story.signed)


async def _is_dead(pool: Pool, spending: Spending, story: Story, of: version.VersionRow) -> bool:
    """Whether it can never be confirmed. The wallet may not know it: a node may never have taken it."""
    outpoints = [each.outpoint for each in of.inputs]
    for txid in dict.fromkeys([Txid(of.txid or ""), *(each.txid for each in outpoints)]):
        if await _confirmations(spending, txid) <= -story.rules.deep:
            return True
    own = {each.txid for each in story.signed}
    async with borrowed(pool) as conn:
        spenders = await coin.read_spenders(conn, outpoints)
    for spender in sorted(set(spenders.values()) - own):
        if await _confirmations(spending, spender) >= story.rules.deep:
            return True
    return False


async def _confirmations(spending: Spending, txid: Txid) -> int:
    known = await spending.transaction(txid)
    return 0 if known is None else known.confirmations
