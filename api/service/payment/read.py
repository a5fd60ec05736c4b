"""Show and list payments: the use cases, for any door."""

import re

from api.service.auth import Caller
from api.service.payment.answer import answer_accepted
from api.service.payment.payment_shape import PaymentOut, show
from api.service.resources import Resources
from engine.domain.errors import no_such
from engine.domain.ids import PaymentId
from engine.domain.page import Position, Slice
from engine.views.payment import PAYMENTS, find_payment

_PAYMENT_ID = re.compile(r"pay_[0-9a-z]{25}")


async def show_payment(resources: Resources, caller: Caller, payment_id: str) -> PaymentOut:
    """A payment of the caller's account, also one that was accepted and has no row yet. Raises NotFound."""
    account_id = caller.account_id
    if not _PAYMENT_ID.fullmatch(payment_id):
        raise no_such("payment")
    async with resources.reading() as conn:
        found = await find_payment(conn, payment_id)
    if found is not None:
        owner, row = found
        if owner != account_id:
            raise no_such("payment")
        return show(row)
    unopened = await answer_accepted(resources, account_id, PaymentId(payment_id))
    if unopened is None:
        raise no_such("payment")
    return unopened


async def list_payments(resources: Resources, caller: Caller, after: Position, limit: int) -> Slice[PaymentOut]:
    """One page of the payments of the caller's account, newest first."""
    async with resources.reading() as conn:
        found = await PAYMENTS.read(conn, after, limit, caller.account_id)
    return found.map(show)
