"""The posting of money without an owner: for an unknown payment hash, or for a closed account. A: what came.

    event      reference                         entries
    unclaimed  ln:<hash>:recv, or its :outside   Dr channels A · Cr suspense:in A

The money is real and is in the node's channels, so the books follow the node. It waits in suspense until two operators
decide whose it is (correction.py). Nobody pays a fee for it. Pure: values and account ids in, one posting out.
"""

from engine.domain.ids import PaymentHash
from engine.domain.money import Msat
from engine.ledger.book import Posting, credit, debit
from engine.ledger.chart import ChartIds
from engine.ledger.postings.receipt import ACTOR, TEMPLATE, receive_ref


def unclaimed(
    ids: ChartIds,
    *,
    payment_hash: PaymentHash,
    amount_msat: Msat,
    channels: int,
    beside_internal: bool,
    workflow_id: str,
) -> Posting:
    """Money came in over Lightning, and no invoice of an open account asked for it."""
    return Posting(
        ref=receive_ref(payment_hash, beside_internal=beside_internal),
        template=TEMPLATE,
        phase="post",
        actor=ACTOR,
        workflow_id=workflow_id,
        legs=[debit(channels, amount_msat), credit(ids.suspense_in, amount_msat)],
    )
