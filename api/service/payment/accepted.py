"""Accepted payments that have no row yet: found in Postgres or Temporal, and kept before the caller is told.

Between the start of a workflow and its first activity only Temporal knows the payment. So its request is written to
Postgres before the caller is told 202: from then on the workflow can be started again from it.
"""

from dataclasses import asdict, dataclass
from datetime import datetime

from pydantic import TypeAdapter

from api.service.payment import payment_run
from api.service.payment.answer import PaymentOut, show_unopened
from api.service.resources import Resources
from engine.bank import accepted
from engine.bank.internal_payee import is_own_invoice
from engine.contracts.payment import PaymentRequest
from engine.domain.ids import AccountId, PaymentId

_REQUEST = TypeAdapter(PaymentRequest)


@dataclass(frozen=True, slots=True)
class AcceptedPayment:
    """The request of a payment, and the workflow that carries it."""

    request: PaymentRequest
    at: datetime
    workflow_id: str


async def find_accepted(resources: Resources, account_id: AccountId, payment_id: PaymentId) -> AcceptedPayment | None:
    """The payment that was accepted under this id, while no worker has opened it. Raises Unavailable."""
    async with resources.reading() as conn:
        kept = await accepted.find_accepted(conn, payment_id)
    if kept is not None and kept.request is not None:
        return AcceptedPayment(_REQUEST.validate_python(kept.request), kept.created_at, kept.workflow_id)
    workflow_id = payment_run.workflow_id_of(account_id, payment_id)
    started = await payment_run.find_started(resources.temporal, workflow_id)
    if started is None and kept is not None:  # written by an older release, without the request
        workflow_id = kept.workflow_id
        started = await payment_run.find_in_lane(resources.temporal, workflow_id, payment_id, kept.created_at)
    return None if started is None else AcceptedPayment(started.request, started.at, workflow_id)


async def keep_accepted(resources: Resources, payment: AcceptedPayment) -> bytes:
    """Write the request before its caller is told that it was accepted.

    Returns the hash of the request that the key stands for, which may be another request.
    """
    request = payment.request
    body_hash = bytes.fromhex(request.body_hash)
    async with resources.reading() as conn:
        kept = await accepted.note_accepted(
            conn, request.payment_id, payment.workflow_id, payment.at, body_hash, request=asdict(request)
        )
    return kept or body_hash


async def show_accepted(resources: Resources, payment: AcceptedPayment) -> PaymentOut:
    """The payment as it was asked for."""
    request = payment.request
    is_internal = request.payee_wallet_id is not None
    if not is_internal and request.payment_hash is not None:
        async with resources.reading() as conn:
            is_internal = await is_own_invoice(conn, request.payment_hash)
    return show_unopened(request, "internal" if is_internal else "lightning", payment.workflow_id, payment.at)
