"""The postings of a withdrawal, until a payout has it (`payout.py`). H: all that is held, A: what a user of ours gets.

    event                  reference             entries
    asked for              wd:<id>:hold          [held] Dr user H · Cr payout queue H
    given back             wd:<id>:void          hold inverted: cancelled, rejected, not approved in time, or failed
    paid in the books      wd:<id>:internal      Dr user A+B · Cr payee A · Cr transfer fees B

H is amount and fee cap, or the amount with the fees in it (`engine/domain/withdrawal/terms.py`). A withdrawal has one
hold and is opened once, so none of these references needs a number. Pure: values and account ids in, one posting out.
"""

from collections.abc import Sequence

from engine.domain.errors import InvariantBroken
from engine.domain.ids import WithdrawalId
from engine.domain.limit import Count
from engine.domain.money import Sat, sat_to_msat
from engine.domain.withdrawal.held import Held
from engine.ledger.book import Counted, Posting, credit, debit
from engine.ledger.chart import ChartIds
from engine.ledger.postings.fee_facts import fee_facts

_ACTOR = "withdrawal"


def hold_ref(withdrawal: WithdrawalId) -> str:
    """Names its hold."""
    return f"wd:{withdrawal}:hold"


def held(ids: ChartIds, withdrawal: Held, *, payer: int, counts: Sequence[Count] = ()) -> Posting:
    """Hold all that can leave the wallet for it. `counts` count towards the payer's limits."""
    return Posting(
        ref=hold_ref(withdrawal.id),
        template="withdrawal_held",
        phase="hold",
        actor=_ACTOR,
        workflow_id=withdrawal.workflow_id,
        description=withdrawal.memo,
        metadata={"withdrawal": withdrawal.id, **fee_facts(withdrawal.charge)},
        legs=[debit(payer, withdrawal.held_msat), credit(ids.payout_queue, withdrawal.held_msat)],
        counted=_counted(payer, counts),
    )


def given_back(withdrawal: Held, why: str, *, actor: str = _ACTOR) -> Posting:
    """Nothing leaves: all of the hold is free again. `why` is the status or the failure code."""
    return Posting(
        ref=f"wd:{withdrawal.id}:void",
        template="withdrawal_given_back",
        phase="void",
        actor=actor,
        workflow_id=withdrawal.workflow_id,
        metadata={"withdrawal": withdrawal.id, "why": str(why)},
        relates_to=[hold_ref(withdrawal.id)],
    )


def paid_in_books(
    ids: ChartIds, withdrawal: Held, *, payer: int, payee: int, paid_sat: Sat, counts: Sequence[Count] = ()
) -> Posting:
    """The address is one of our users': paid at once, and final."""
    if sat_to_msat(paid_sat) + withdrawal.service_fee_msat != withdrawal.held_msat:
        raise InvariantBroken(f"{withdrawal.id}: amount and fee are not what is taken for it")
    legs = [debit(payer, withdrawal.held_msat), credit(payee, sat_to_msat(paid_sat))]
    if withdrawal.service_fee_msat > 0:
        legs.append(credit(ids.transfer_fees, withdrawal.service_fee_msat))
    return Posting(
        ref=f"wd:{withdrawal.id}:internal",
        template="withdrawal_paid_in_books",
        phase="post",
        actor=_ACTOR,
        workflow_id=withdrawal.workflow_id,
        description=withdrawal.memo,
        metadata={"withdrawal": withdrawal.id, **fee_facts(withdrawal.charge)},
        legs=legs,
        counted=_counted(payer, counts),
    )


def _counted(payer: int, counts: Sequence[Count]) -> Counted | None:
    return Counted(payer, counts) if counts else None
