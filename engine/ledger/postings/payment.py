"""The postings of a payment. A: amount, F: routing cap, f: actual routing fee, B: our fee, D: delivered amount.

D is A, unless the payee has taken only some parts of the payment.

    event                        reference               entries
    reserved                     ln:<hash>:hold:<n>      [held] Dr user A+F+B · Cr outbox A+F+B
    settled                      ln:<hash>:settle        hold inverted · Dr user D+f+B · Dr routing cost f
                                                         · Cr channels D+f · Cr lightning fees f+B
    released                     ln:<hash>:void:<n>      hold inverted
    paid to a wallet             pay:<payment id>        Dr payer A+B · Cr payee A · Cr transfer fees B
    paid by invoice, internally  ln:<hash>:recv          the same; shares its reference with a receipt from outside

The user pays f, which is our income, and the network costs us f: the books show both. B is computed once, when the
payment is opened. Pure: values and account ids in, one posting out.
"""

from collections.abc import Sequence

from engine.domain.errors import InvariantBroken
from engine.domain.ids import PaymentHash
from engine.domain.limit import Count
from engine.domain.money import Msat
from engine.domain.payment import Payment
from engine.ledger.book import Counted, Posting, credit, debit
from engine.ledger.chart import ChartIds
from engine.ledger.postings.fee_facts import fee_facts
from engine.ledger.postings.receipt import receive_ref

_ACTOR = "payment"


def hold_ref(payment_hash: PaymentHash, attempt: int) -> str:
    """Names the hold of one attempt, counted from 1 over all payments of this hash."""
    return f"ln:{payment_hash}:hold:{attempt}"


def reserved(ids: ChartIds, payment: Payment, payer: int, counts: Sequence[Count] = ()) -> Posting:
    """Hold amount, routing cap and our fee before anything is sent. `counts` count towards the payer's limits."""
    return Posting(
        ref=hold_ref(*_attempt(payment)),
        template="lightning_reserved",
        phase="hold",
        actor=_ACTOR,
        workflow_id=payment.workflow_id,
        description=payment.memo,
        metadata=fee_facts(payment.charge),
        legs=[debit(payer, payment.total_msat), credit(ids.outbox, payment.total_msat)],
        counted=_counted(payer, counts),
    )


def settled(
    ids: ChartIds,
    payment: Payment,
    *,
    payer: int,
    channels: int,
    fee_msat: Msat,
    delivered_msat: Msat | None = None,
) -> Posting:
    """The node paid, with `fee_msat` for routing: amount and both fees leave, and the rest of the hold is released.

    `delivered_msat` replaces the amount if the payee has taken another one. Raises InvariantBroken for more than is
    held.
    """
    payment_hash, attempt = _attempt(payment)
    if fee_msat > payment.routing_cap_msat:
        raise InvariantBroken(f"{payment.id}: the node paid a fee of {fee_msat} msat above {payment.routing_cap_msat}")
    amount_msat = payment.amount_msat if delivered_msat is None else delivered_msat
    if amount_msat + fee_msat > payment.amount_msat + payment.routing_cap_msat:
        raise InvariantBroken(f"{payment.id}: the payee has taken {amount_msat} msat, which is more than is held")
    income_msat = fee_msat + payment.service_fee_msat
    legs = [debit(payer, amount_msat + income_msat), credit(channels, amount_msat + fee_msat)]
    if fee_msat > 0:
        legs.append(debit(ids.routing_cost, fee_msat))
    if income_msat > 0:
        legs.append(credit(ids.lightning_fees, income_msat))
    return Posting(
        ref=f"ln:{payment_hash}:settle",
        template="lightning_settled",
        phase="settle",
        actor=_ACTOR,
        workflow_id=payment.workflow_id,
        metadata=fee_facts(payment.charge),
        legs=legs,
        relates_to=[hold_ref(payment_hash, attempt)],
    )


def released(payment: Payment) -> Posting:
    """The node said that nothing was paid: all of the hold is released."""
    payment_hash, attempt = _attempt(payment)
    return Posting(
        ref=f"ln:{payment_hash}:void:{attempt}",
        template="lightning_released",
        phase="void",
        actor=_ACTOR,
        workflow_id=payment.workflow_id,
        relates_to=[hold_ref(payment_hash, attempt)],
    )


def paid_internally(
    ids: ChartIds, payment: Payment, *, payer: int, payee: int, counts: Sequence[Count] = ()
) -> Posting:
    """A payment from one of our users to another; final at once. The payer pays our fee."""
    fee_msat = payment.service_fee_msat
    legs = [debit(payer, payment.amount_msat + fee_msat), credit(payee, payment.amount_msat)]
    if fee_msat > 0:
        legs.append(credit(ids.transfer_fees, fee_msat))
    return Posting(
        ref=receive_ref(payment.payment_hash) if payment.payment_hash else f"pay:{payment.id}",
        template="paid_internally",
        phase="post",
        actor=_ACTOR,
        workflow_id=payment.workflow_id,
        description=payment.memo,
        metadata={"payment": payment.id, **fee_facts(payment.charge)},
        legs=legs,
        counted=_counted(payer, counts),
    )


def _counted(payer: int, counts: Sequence[Count]) -> Counted | None:
    return Counted(payer, counts) if counts else None


def _attempt(payment: Payment) -> tuple[PaymentHash, int]:
    if payment.payment_hash is None or payment.attempt is None:
        raise InvariantBroken(f"{payment.id} is no Lightning payment")
    return payment.payment_hash, payment.attempt
