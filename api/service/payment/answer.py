"""The answer to an order: the payment shown from its row, or from its request while no worker has opened it.

Between the start of a workflow and its first activity only Temporal knows the payment. So its request is written to
Postgres before the caller is told 202: from then on the workflow can be started again from it.
"""

from dataclasses import asdict, dataclass

from pydantic import TypeAdapter

from api.service import temporal
from api.service.idempotency import as_error, check_same
from api.service.payment.payment_run import AcceptedPayment
from api.service.payment.payment_shape import PaymentOut, WaitingOut, show
from api.service.resources import Resources
from engine.bank import accepted
from engine.bank.internal_payee import is_own_invoice
from engine.contracts import workflow_ids
from engine.contracts.lane import LaneRequest
from engine.contracts.payment import PaymentRequest
from engine.domain.errors import InvariantBroken
from engine.domain.ids import AccountId, PaymentId
from engine.views.payment import KeyAnswer

_REQUEST = TypeAdapter(PaymentRequest)


@dataclass(frozen=True, slots=True)
class PaymentAnswer:
    """A payment as its caller is shown it."""

    payment: PaymentOut
    is_replay: bool
    """Whether an earlier request with the same key was accepted."""

    @property
    def is_final(self) -> bool:
        """Whether the payment never changes again."""
        return self.payment.status != "pending"


def answer_of(known: KeyAnswer) -> PaymentOut:
    """The payment that a key stands for. Raises the refusal that the key has got."""
    if known.refusal is not None:
        raise as_error(known.refusal)
    if known.payment is None:
        raise InvariantBroken("an idempotency key names a payment that is not there")
    return show(known.payment)


async def answer_accepted(
    resources: Resources,
    account_id: AccountId,
    payment_id: PaymentId,
    known: AcceptedPayment | None = None,
    *,
    body_hash: bytes | None = None,
) -> PaymentOut | None:
    """Keep the request of a payment that no worker has opened, and show the payment as it was asked for.

    None where no such payment was accepted. A repeat leaves the first row as it is. Raises Unavailable, and Conflict
    where the key stands for an order with another hash.
    """
    payment = known or await _find_accepted(resources, account_id, payment_id)
    if payment is None or (payment.request.payment_id, payment.request.account_id) != (payment_id, account_id):
        return None
    request, own_hash = payment.request, bytes.fromhex(payment.request.body_hash)
    async with resources.reading() as conn:
        kept_hash = await accepted.note_accepted(
            conn, payment_id, payment.workflow_id, payment.at, own_hash, request=asdict(request)
        )
        if body_hash is not None:
            check_same(kept_hash or own_hash, body_hash)
        is_internal = request.payee_wallet_id is not None or (
            request.payment_hash is not None and await is_own_invoice(conn, request.payment_hash)
        )
    return PaymentOut(
        id=request.payment_id,
        wallet_id=request.wallet_id,
        kind="internal" if is_internal else "lightning",
        status="pending",
        destination=request.destination,
        amount_msat=request.amount_msat,
        fee_msat=0,
        max_fee_msat=request.max_fee_msat,
        payment_hash=request.payment_hash,
        preimage=None,
        memo=request.memo,
        external_id=request.external_id,
        failure=None,
        waiting=WaitingOut(reason="opening", detail="no worker has taken it up yet", since=payment.at),
        created_at=payment.at,
        settled_at=None,
        workflow_id=payment.workflow_id,
    )


async def _find_accepted(resources: Resources, account_id: AccountId, payment_id: PaymentId) -> AcceptedPayment | None:
    """From the row of a caller who was told 202, else from Temporal."""
    async with resources.reading() as conn:
        kept = await accepted.find_accepted(conn, payment_id)
    if kept is not None and kept.request is not None:
        return AcceptedPayment(_REQUEST.validate_python(kept.request), kept.created_at, kept.workflow_id)
    workflow_id = workflow_ids.payment_of(account_id, payment_id)
    started = await temporal.read_input(resources.temporal.get_workflow_handle(workflow_id), PaymentRequest)
    if started is not None:
        return AcceptedPayment(*started, workflow_id)
    if kept is None:
        return None
    # An older release wrote the row, without the request: the lane has it.
    found = await temporal.read_input(resources.temporal.get_workflow_handle(kept.workflow_id), LaneRequest)
    for each in found[0].items if found else []:
        if each.payment_id == payment_id:
            return AcceptedPayment(each, kept.created_at, kept.workflow_id)
    return None
