"""The door to payments: POST pays, GET shows one or lists them. The use cases are in api/service/payment/."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from api.access import PathId, asked_by_hand, enter, get_resources, needs
from api.http import accepted, idempotency_key, prefer
from api.http.body import AmountMsat, Content, DestinationText, ExternalId, Id, JsonBody, Memo, documented
from api.http.errors import problems
from api.http.paging import Page, Paging, page_of, position
from api.service.auth import Caller
from api.service.deadline import Deadline
from api.service.payment import pay, read
from api.service.payment.order import PaymentOrder
from api.service.payment.payment_shape import PaymentOut
from api.service.resources import Resources
from engine.domain.money import MAX_AMOUNT_MSAT

router = APIRouter(tags=["payments"])
Read = Annotated[Caller, Depends(needs("read"))]
Res = Annotated[Resources, Depends(get_resources)]


class NewPaymentIn(Content):
    """Whom to pay, and from which wallet."""

    wallet_id: Id
    destination: DestinationText = Field(
        description="A BOLT 11 invoice (also `lightning:…`, BIP 21 with `lightning=`), `name@domain`, an LNURL, "
        "`@username`, `wallet:<id>`, an on-chain address of a user of this bank (also as `bitcoin:…`), or, where the "
        "bank allows it, a node's public key (keysend)."
    )
    amount_msat: AmountMsat | None = Field(default=None, description="Required if the destination names no amount.")
    max_fee_msat: Annotated[int, Field(ge=0, le=MAX_AMOUNT_MSAT)] | None = Field(
        default=None,
        description="The most to pay on top of the amount: routing and our own fee. By default routing may take 1 %, "
        "and at least 5,000 msat, and our fee comes on top. `max_fee_factor` of `GET /v1/limits` bounds it.",
    )
    memo: Memo | None = None
    external_id: ExternalId | None = None


_BODY = JsonBody(NewPaymentIn)


@router.post(
    "/v1/payments",
    status_code=201,
    summary="Pay",
    responses=accepted.not_final(PaymentOut)
    | problems(
        *("forbidden", "not_found", "invalid_request", "idempotency_key_required", "idempotency_conflict"),
        *("request_too_large", "invalid_destination", "wrong_network", "use_withdrawals", "invoice_expired"),
        *("amount_required", "amount_mismatch", "amount_too_small", "self_payment", "insufficient_funds"),
        *("limit_exceeded", "fee_limit_exceeded", "spend_limit_exceeded", "payee_closed", "price_unavailable"),
        "destination_unavailable",
        *("account_locked", "invoice_already_paid", "invoice_cancelled", "payment_in_progress", "node_unavailable"),
        *("too_many_in_flight", "invoice_unpayable", "keysend_disabled", "max_fee_too_high"),
        "invoice_refused_by_node",
    ),
    openapi_extra=documented(
        NewPaymentIn,
        to_a_user={"wallet_id": "wal_…", "destination": "@bob", "amount_msat": 12_500_000, "memo": "lunch"},
        an_invoice={"wallet_id": "wal_…", "destination": "lnbcrt…", "max_fee_msat": 10_000},
        an_address={"wallet_id": "wal_…", "destination": "carol@example.com", "amount_msat": 21_000},
    )
    | asked_by_hand(Idempotency_Key=idempotency_key.MEANING, Prefer=prefer.MEANING),
)
async def make_payment(request: Request, response: Response) -> PaymentOut:
    """Scope: `send`. 201 once final (settled, or failed with `failure`), 202 while in flight.

    A payment to a user or an invoice of this bank settles at once. It costs at most our own fee.
    """
    resources, caller = await enter(request, "send")
    key = await idempotency_key.required_key(request)
    deadline = Deadline(prefer.wait_s(request.headers.getlist("Prefer")))
    body = await _BODY(request)
    order = PaymentOrder(**body.content.model_dump(), key=key, body_hash=body.hash)
    answer = await pay.pay(resources, caller, order, deadline)
    if answer.is_replay:
        idempotency_key.mark_replayed(response)
    if not answer.is_final:
        accepted.accept(response, f"/v1/payments/{answer.payment.id}")
    return answer.payment


@router.get("/v1/payments/{payment_id}", summary="Show a payment", responses=problems("forbidden", "not_found"))
async def show_payment(caller: Read, resources: Res, payment_id: PathId) -> PaymentOut:
    """Scope: `read`. Also shows a payment that was accepted (202) and is not booked yet."""
    return await read.show_payment(resources, caller, payment_id)


@router.get("/v1/payments", summary="List your payments", responses=problems("forbidden", "invalid_request"))
async def list_payments(caller: Read, resources: Res, paging: Annotated[Paging, Query()]) -> Page[PaymentOut]:
    """Scope: `read`. Newest first."""
    name = f"payments {caller.account_id}"
    return page_of(await read.list_payments(resources, caller, position(paging, name), paging.limit), name)
