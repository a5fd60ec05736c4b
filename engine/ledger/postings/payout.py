"""The postings of a payout. A: the members' outputs, M: the miner fee of the version that was sent first, B: our fees.

    event                          reference                entries
    sent                           batch:<id>:broadcast     the members' holds inverted · per wallet Dr user A+share+B
                                                            · Cr hot A+M · Cr withdrawal fees B
    sent, and pays nobody          batch:<id>:broadcast     Dr miner fees M · Cr hot M
    another fee is in force        batch:<id>:fee:<n>       Dr miner fees Δ · Cr hot Δ, or inverted where Δ is negative

The shares add up to M exactly. What a later version pays more is ours; so is what one pays less that confirms after it.
Change and inputs stay in the hot wallet, so only what leaves it is booked. Pure: values and account ids in, a posting
out.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from engine.domain.errors import InvariantBroken
from engine.domain.ids import PayoutId, Txid
from engine.domain.money import Msat, Sat, sat_to_msat
from engine.domain.withdrawal.held import Held
from engine.ledger.book import Fact, Posting, credit, debit
from engine.ledger.chart import ChartIds
from engine.ledger.postings.withdrawal import hold_ref

_ACTOR = "payout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A payout that is in the network."""

    id: PayoutId
    txid: Txid
    fee_sat: Sat
    workflow_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidMember:
    """A withdrawal that it pays."""

    withdrawal: Held
    payer: int
    """The ledger account of the wallet that pays."""
    paid_sat: Sat
    miner_fee_sat: Sat
    takes_all: bool
    """Whether the fees come out of the amount, so that nothing of the hold is left."""

    @property
    def taken_msat(self) -> Msat:
        """What leaves the wallet for it."""
        return self.withdrawal.taken_msat(
            paid_sat=self.paid_sat, miner_fee_sat=self.miner_fee_sat, takes_all=self.takes_all
        )


def broadcast_ref(payout: PayoutId) -> str:
    """Names the posting by which the books have it."""
    return f"batch:{payout}:broadcast"


def broadcast(ids: ChartIds, sent: Sent, members: Sequence[PaidMember]) -> Posting:
    """The network has it: outputs, shares and our fees leave the wallets, and the rest of the holds is free again.

    `sent.fee_sat` is what the shares were made from. Raises InvariantBroken unless they add up to it.
    """
    fee_msat = sat_to_msat(sent.fee_sat)
    facts: dict[str, Fact] = {"payout": sent.id, "txid": sent.txid, "miner_fee_msat": fee_msat, "members": len(members)}
    if not members:
        return Posting(
            ref=broadcast_ref(sent.id),
            template="payout_sent",
            phase="post",
            actor=_ACTOR,
            workflow_id=sent.workflow_id,
            metadata=facts,
            legs=[debit(ids.miner_withdraw, fee_msat), credit(ids.hot, fee_msat)],
        )
    if (shares_sat := sum(each.miner_fee_sat for each in members)) != sent.fee_sat:
        raise InvariantBroken(f"{sent.id}: the shares are {shares_sat} sat of a miner fee of {sent.fee_sat} sat")
    taken: Counter[int] = Counter()
    for each in members:
        taken[each.payer] += each.taken_msat
    legs = [debit(payer, msat) for payer, msat in sorted(taken.items())]
    legs.append(credit(ids.hot, sat_to_msat(Sat(sum(each.paid_sat for each in members))) + fee_msat))
    if fees_msat := sum(each.withdrawal.service_fee_msat for each in members):
        legs.append(credit(ids.withdraw_fees, fees_msat))
    return Posting(
        ref=broadcast_ref(sent.id),
        template="payout_sent",
        phase="settle",
        actor=_ACTOR,
        workflow_id=sent.workflow_id,
        metadata=facts,
        legs=legs,
        relates_to=[hold_ref(each.withdrawal.id) for each in members],
    )


def fee_changed(ids: ChartIds, sent: Sent, *, booked_sat: Sat, number: int) -> Posting:
    """The version in force, `sent`, pays another fee than the books have. `number` counts these postings from 1.

    Raises InvariantBroken when the fee is the same.
    """
    change_msat = sat_to_msat(Sat(sent.fee_sat - booked_sat))
    if change_msat == 0:
        raise InvariantBroken(f"{sent.id}: its fee of {booked_sat} sat is booked already")
    if change_msat > 0:
        legs = [debit(ids.miner_withdraw, change_msat), credit(ids.hot, change_msat)]
    else:
        legs = [debit(ids.hot, -change_msat), credit(ids.miner_withdraw, -change_msat)]
    return Posting(
        ref=f"batch:{sent.id}:fee:{number}",
        template="payout_fee_changed",
        phase="post",
        actor=_ACTOR,
        workflow_id=sent.workflow_id,
        metadata={"payout": sent.id, "txid": sent.txid, "miner_fee_msat": sat_to_msat(sent.fee_sat)},
        legs=legs,
    )
