"""The door to quotes. The use case is in api/service/quote/."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from api.access import get_resources, needs
from api.http.body import AmountMsat, Body, Content, DestinationText, Id, JsonBody, documented
from api.http.errors import problems
from api.http.idempotency_key import optional_key
from api.service.auth import Caller
from api.service.quote.answer import QuoteOut
from api.service.quote.quote import QuoteOrder, quote
from api.service.resources import Resources

router = APIRouter(tags=["payments"])


class QuoteIn(Content):
    """The payment to quote."""

    wallet_id: Id
    destination: DestinationText
    amount_msat: AmountMsat | None = Field(default=None, description="Required if the destination names no amount.")


@router.post(
    "/v1/payments/quote",
    summary="Quote a payment",
    responses=problems(
        *("forbidden", "not_found", "invalid_request", "request_too_large", "invalid_destination", "wrong_network"),
        *("use_withdrawals", "invoice_expired", "amount_required", "amount_mismatch", "amount_too_small"),
        *("self_payment", "destination_unavailable", "account_locked", "payee_closed", "keysend_disabled"),
        *("invoice_already_paid", "payment_in_progress", "invoice_cancelled", "invoice_unpayable"),
        "invoice_refused_by_node",
    ),
    openapi_extra=documented(
        QuoteIn,
        to_a_user={"wallet_id": "wal_…", "destination": "@bob", "amount_msat": 12_500_000},
        an_invoice={"wallet_id": "wal_…", "destination": "lnbcrt…"},
    ),
)
async def quote_payment(
    caller: Annotated[Caller, Depends(needs("read"))],
    _key: Annotated[str | None, Depends(optional_key)],
    body: Annotated[Body[QuoteIn], Depends(JsonBody(QuoteIn))],
    resources: Annotated[Resources, Depends(get_resources)],
) -> QuoteOut:
    """Scope: `read`. Changes nothing, so an Idempotency-Key is accepted and not kept.

    A warning `limit_exceeded` or `spend_limit_exceeded` means that amount and `max_fee_msat` together exceed what the
    limits leave now: such a payment would be refused.
    """
    return await quote(resources, caller, QuoteOrder(**body.content.model_dump()))
