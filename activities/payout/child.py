"""A child: it spends the change of a payout in the mempool and pays for both, where the payout itself cannot pay more.

It is a payout of its own without members. `dead.py` says when it is over without a block.
"""

from dataclasses import dataclass

from activities.payout.new import Planned, add_in_tx
from activities.payout.replace import change_weights
from activities.payout.story import Story
from engine.bank.withdrawal import version
from engine.clients.bitcoind.spending_answer import MempoolEntry
from engine.contracts.payout import PayoutRef
from engine.domain.deposit import Outpoint
from engine.domain.errors import Refused
from engine.domain.ids import Txid
from engine.domain.money import Sat
from engine.domain.withdrawal import bump, weight
from engine.domain.withdrawal.script import dust_sat, input_weight, output_script
from engine.domain.withdrawal.withdrawal import PayoutKind
from engine.ledger.database import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """A payout that a child is to pull, and how it stands in the mempool."""

    story: Story
    entry: MempoolEntry | None
    address_type: str


async def plan_in_tx(conn: Connection, pulled: Pulled, rate_sat_kvb: int) -> PayoutRef:
    """Store the plan of a child that lifts the current version to this rate, its coin reserved.

    Raises Refused (`payout_not_waiting`) when the version is not in the mempool, has no change, or too little.
    """
    story, entry, current = pulled.story, pulled.entry, pulled.story.current
    if entry is None or current.txid is None or current.change_vout is None or current.change_address is None:
        raise _impossible("its transaction is not in the mempool, or has no change")
    output, _ = change_weights(pulled.address_type)
    script = output_script(current.change_address)
    own_weight = weight.transaction_weight([input_weight(script)], [output])
    fee = bump.child_fee(Sat(entry.ancestors_fee_sat), 4 * entry.ancestors_vbytes, own_weight, rate_sat_kvb)
    change_sat = Sat(current.change_sat - fee)
    if change_sat < dust_sat(script):
        raise _impossible(f"its change of {current.change_sat} sat is too little for a fee of {fee} sat")
    row = story.payout
    spent = Outpoint(txid=Txid(current.txid), vout=current.change_vout)
    planned = Planned(
        wallet=row.wallet,
        kind=PayoutKind.CHILD,
        speed=row.speed,
        estimate={"rate_sat_kvb": rate_sat_kvb, "source": "operator"},
        inputs=[version.Input(outpoint=spent, amount_sat=current.change_sat)],
        rate_sat_kvb=rate_sat_kvb,
        fee_sat=fee,
        weight=own_weight,
        change_sat=change_sat,
        change_vout=0,
        parent_id=row.id,
    )
    return await add_in_tx(conn, planned)


def _impossible(why: str) -> Refused:
    return Refused(f"A child cannot pull this payout: {why}.", code="payout_not_waiting")
