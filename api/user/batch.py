"""The door to batches: POST pays one, GET shows one. The use cases are in api/service/batch/."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from api.access import PathId, get_resources, needs, waiting
from api.http import accepted, idempotency_key
from api.http.body import AmountMsat, Body, Content, DestinationText, Id, JsonBody, Memo, documented
from api.http.errors import problems
from api.service.auth import Caller
from api.service.batch import batch_item, order, pay
from api.service.batch.answer import BatchOut
from api.service.deadline import Deadline
from api.service.resources import Resources
from engine.contracts.batch import MAX_BODY_BYTES, MAX_ITEMS
from engine.domain.ids import WalletId

router = APIRouter(tags=["payments"])
Send = Annotated[Caller, Depends(needs("send"))]
Read = Annotated[Caller, Depends(needs("read"))]
Res = Annotated[Resources, Depends(get_resources)]


class BatchItemIn(Content):
    """Whom to pay, and how much."""

    destination: DestinationText = Field(
        description="`@username` (also as our lightning address), `wallet:<id>`, or an invoice or address of this bank."
    )
    amount_msat: AmountMsat | None = Field(default=None, description="Required if the destination names no amount.")
    memo: Memo | None = None


class NewBatchIn(Content):
    """Payments from one wallet."""

    wallet_id: Id
    items: Annotated[list[BatchItemIn], Field(min_length=1, max_length=MAX_ITEMS)]


@router.post(
    "/v1/payments/batch",
    status_code=201,
    summary="Pay many at once",
    responses=accepted.not_final(BatchOut)
    | problems(
        *("forbidden", "not_found", "invalid_request", "idempotency_key_required", "idempotency_conflict"),
        *("request_too_large", "invalid_destination", "wrong_network", "use_withdrawals", "invoice_expired"),
        *("amount_required", "amount_mismatch", "self_payment", "insufficient_funds", "limit_exceeded"),
        *("spend_limit_exceeded", "payee_closed", "price_unavailable"),
        *("account_locked", "invoice_already_paid", "invoice_cancelled"),
    ),
    openapi_extra=documented(
        NewBatchIn,
        wages={
            "wallet_id": "wal_…",
            "items": [
                {"destination": "@bob", "amount_msat": 12_500_000, "memo": "May"},
                {"destination": "wallet:wal_…", "amount_msat": 9_000_000},
                {"destination": "lnbcrt…"},
            ],
        },
    ),
)
async def pay_batch(
    response: Response,
    caller: Send,
    key: Annotated[str, Depends(idempotency_key.required_key)],
    deadline: Annotated[Deadline, Depends(waiting)],
    body: Annotated[Body[NewBatchIn], Depends(JsonBody(NewBatchIn, max_bytes=MAX_BODY_BYTES))],
    resources: Res,
) -> BatchOut:
    """Scope: `send`. Up to 1,000 payments to users and invoices of this bank: all of them, or none.

    They are settled in their order, each with its own fee, limits and payment. If a rule refuses one item, nothing is
    paid, and the problem has its position as `item`, from 0. A body has at most 1,048,576 bytes.
    """
    wanted = order.BatchOrder(
        wallet_id=WalletId(body.content.wallet_id),
        items=[batch_item.BatchItemOrder(**item.model_dump()) for item in body.content.items],
        key=key,
        body_hash=body.hash,
    )
    answer = await pay.pay_batch(resources, caller, wanted, deadline)
    if answer.is_replay:
        idempotency_key.mark_replayed(response)
    if not answer.content.is_final:
        accepted.accept(response, f"/v1/payments/batch/{answer.content.id}")
    return answer.content


@router.get("/v1/payments/batch/{batch_id}", summary="Show a batch", responses=problems("forbidden", "not_found"))
async def show_batch(caller: Read, resources: Res, batch_id: PathId) -> BatchOut:
    """Scope: `read`. With all its items. Also shows a batch that was accepted (202) and is not settled yet. A refused
    batch is not found."""
    return await pay.show_batch(resources, caller, batch_id)
