"""Whose output the node would not relay: asked with the unsigned transaction, before anybody has signed anything.

A node looks at the outputs before it looks at signatures. So it says of an unsigned transaction that an output is dust,
or of a script that it does not relay; of any other, that the signatures are missing.
"""

from activities.payout.story import Story
from engine.clients.bitcoind.spending import Spending
from engine.clients.bitcoind.verdict import Refusal
from engine.domain.ids import WithdrawalId
from engine.domain.money import Sat
from engine.domain.withdrawal.transaction import unsigned_transaction

_OF_OUTPUTS = (Refusal.DUST, Refusal.SCRIPT)


async def members_refused(spending: Spending, story: Story) -> dict[WithdrawalId, str]:
    """The members whose outputs it does not take, with its words. One question when it takes all. A repeat asks again.

    Raises Unavailable. Empty also for a payout whose change it does not take: its broadcast says so.
    """
    outputs = {each.id: (each.script, each.paid_sat) for each in story.members}
    if not outputs or await _refusal(spending, story, list(outputs.values())) is None:
        return {}
    found = {}
    for member, output in outputs.items():
        words = await _refusal(spending, story, [output])
        if words is not None:
            found[member] = words
    return found


async def _refusal(spending: Spending, story: Story, outputs: list[tuple[bytes, Sat]]) -> str | None:
    inputs = [each.outpoint for each in story.current.inputs]
    verdict = await spending.test(unsigned_transaction(inputs, outputs).hex())
    return verdict.words if verdict.refusal in _OF_OUTPUTS else None
