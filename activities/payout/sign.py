"""The signed transaction of a version. What the signer returns is compared with the plan, and stored before it is sent.

For unlinked payouts the ancestry of all inputs is walked through the wallet's own transactions before, and compared
with the deposits and payouts of every member: the chain checks what the books have chosen (`linked.py`).
"""

from activities.payout.draft import dissolve, outputs_of
from activities.payout.linked import give_up, linked_inputs
from activities.payout.story import Story
from engine.bank.withdrawal import payout, version
from engine.clients.bitcoind.signer import Signer
from engine.clients.bitcoind.spending import Spending
from engine.domain.errors import InvariantBroken
from engine.domain.withdrawal.signature import fixes_all
from engine.domain.withdrawal.transaction import REPLACEABLE, VERSION, parse_transaction_hex
from engine.domain.withdrawal.withdrawal import PayoutStatus
from engine.ledger.database import Pool, transaction


async def sign(pool: Pool, spending: Spending, signer: Signer, story: Story) -> None:
    """Store the signed bytes of the current version. A repeat finds them stored, or signs the same transaction again.

    Raises InvariantBroken when the signed transaction is not the planned one.
    """
    of = story.current
    if of.psbt is None:
        raise InvariantBroken(f"{of.payout_id}: version {of.number} has no draft")
    inputs = [each.outpoint for each in of.inputs]
    if story.payout.status is PayoutStatus.PLANNED and len(await spending.unspent(inputs)) < len(inputs):
        await dissolve(pool, spending, story)  # spent by hand, and nothing is signed yet
        return
    if story.payout.unlinked and (linked := await linked_inputs(pool, spending, story)):
        await give_up(pool, spending, story, linked)
        return
    signed = await signer.sign(of.psbt)
    _compare(story, signed.raw)
    async with transaction(pool) as conn:
        row = await payout.get_row_in_tx(conn, of.payout_id)
        if row.status is PayoutStatus.DISSOLVED:  # by another call, which has found a coin gone
            return
        stored = next(each for each in await version.list_versions(conn, of.payout_id) if each.number == of.number)
        if stored.raw is None:
            await version.set_signed_in_tx(conn, of.payout_id, of.number, raw=signed.raw, txid=signed.txid)
        if row.status is PayoutStatus.PLANNED:
            await payout.mark_signed_in_tx(conn, of.payout_id)


def _compare(story: Story, raw: str) -> None:
    of = story.current
    try:
        tx = parse_transaction_hex(raw)
    except ValueError as error:
        raise InvariantBroken(f"{of.payout_id}: the signed transaction cannot be read: {error}") from None
    wanted = outputs_of(story, of, of.change_address)
    spent_sat = sum(each.amount_sat for each in of.inputs)
    if (
        list(tx.outpoints) != [each.outpoint for each in of.inputs]
        or [tuple(each) for each in tx.outputs] != wanted
        or spent_sat - tx.paid_sat != of.fee_sat
        or (tx.version, tx.locktime, {each.sequence for each in tx.inputs}) != (VERSION, 0, {REPLACEABLE})
    ):
        raise InvariantBroken(f"{of.payout_id}: the signed transaction is not the one that was planned")
    if not all(fixes_all(each) for each in tx.inputs):
        raise InvariantBroken(f"{of.payout_id}: a signature leaves open what the transaction spends or pays")
