"""The posting of a receipt: one of our invoices was paid from outside. A: what came, B: our fee, at most A.

    event                                       reference               entries
    credited                                    ln:<hash>:recv          Dr channels A · Cr user A−B · Cr fees B
    credited although one of our users had paid ln:<hash>:recv:outside  the same
    paid by one of our users (payment.py)       ln:<hash>:recv          there the payer pays our fee
    for no invoice, or a closed account         ln:<hash>:recv          suspense.py

Both payers of an invoice share the reference. So when two pay the same invoice at the same moment, the second one is
noticed, whoever it is. Pure: values and account ids in, one posting out.
"""

from engine.domain.fee import Charge
from engine.domain.ids import PaymentHash
from engine.domain.money import Msat
from engine.ledger.book import Posting, credit, debit
from engine.ledger.chart import ChartIds
from engine.ledger.postings.fee_facts import fee_facts

ACTOR = "receive"
TEMPLATE = "lightning_received"


def receive_ref(payment_hash: PaymentHash, *, beside_internal: bool = False) -> str:
    """The reference of "this invoice was paid", from inside or outside.

    `beside_internal`: paid from outside, although one of our users has paid it too.
    """
    return f"ln:{payment_hash}:recv" + (":outside" if beside_internal else "")


def credited(
    ids: ChartIds,
    *,
    payment_hash: PaymentHash,
    amount_msat: Msat,
    channels: int,
    payee: int,
    charge: Charge | None,
    beside_internal: bool,
    workflow_id: str,
) -> Posting:
    """Money came in over Lightning. The payee pays our fee out of it."""
    fee_msat = charge.fee_msat if charge else Msat(0)
    legs = [debit(channels, amount_msat)]
    if amount_msat > fee_msat:
        legs.append(credit(payee, amount_msat - fee_msat))
    if fee_msat > 0:
        legs.append(credit(ids.lightning_fees, fee_msat))
    return Posting(
        ref=receive_ref(payment_hash, beside_internal=beside_internal),
        template=TEMPLATE,
        phase="post",
        actor=ACTOR,
        workflow_id=workflow_id,
        metadata=fee_facts(charge),
        legs=legs,
    )
