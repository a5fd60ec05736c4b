"""Invoices over HTTP: make, show, list and cancel."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from api.access import PathId, asked_by_hand, enter, get_resources, needs
from api.http import idempotency_key
from api.http.body import AmountMsat, Content, ExternalId, Id, JsonBody, Memo, documented, empty_hash
from api.http.errors import problems
from api.http.idempotency_key import mark_replayed, optional_key
from api.http.paging import Page, Paging, page_of, position
from api.service.auth import Caller
from api.service.invoice import invoice
from api.service.invoice.answer import InvoiceOut
from api.service.invoice.node import DEFAULT_EXPIRY_S, InvoiceOrder
from api.service.resources import Resources

router = APIRouter(tags=["invoices"])
Receive = Annotated[Caller, Depends(needs("receive"))]
Read = Annotated[Caller, Depends(needs("read"))]
Key = Annotated[str | None, Depends(optional_key)]
Res = Annotated[Resources, Depends(get_resources)]

MIN_EXPIRY_S, MAX_EXPIRY_S = 1, 7 * 86_400


class NewInvoiceIn(Content):
    """What to ask for. Without an amount the payer chooses."""

    wallet_id: Id
    amount_msat: AmountMsat | None = None
    memo: Memo | None = Field(default=None, description="Shown to the payer, unless description_hash is given.")
    description_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None,
        description="SHA-256 of a description that the payer gets elsewhere. The invoice has it instead of the memo.",
    )
    expiry_s: Annotated[int, Field(ge=MIN_EXPIRY_S, le=MAX_EXPIRY_S)] = Field(
        default=DEFAULT_EXPIRY_S, description="From one second to seven days."
    )
    external_id: ExternalId | None = None


_BODY = JsonBody(NewInvoiceIn)


@router.post(
    "/v1/invoices",
    status_code=201,
    summary="Make an invoice",
    responses=problems(
        "forbidden",
        "not_found",
        "invalid_request",
        "idempotency_conflict",
        "external_id_taken",
        "account_locked",
        "node_unavailable",
    ),
    openapi_extra=documented(
        NewInvoiceIn, coffee={"wallet_id": "wal_…", "amount_msat": 250_000, "memo": "1 cup of coffee"}
    )
    | asked_by_hand(Idempotency_Key=idempotency_key.MEANING),
)
async def make_invoice(request: Request, response: Response) -> InvoiceOut:
    """Scope: `receive`. A user of this bank pays the invoice at once, without the network.

    `receivable_msat` says how much can come in from outside now. `warning` says that this amount cannot.
    """
    resources, caller = await enter(request, "receive")
    key, body = await optional_key(request), await _BODY(request)
    order = InvoiceOrder(**body.content.model_dump())
    made = await invoice.make_invoice(resources, caller, order, key=key, body_hash=body.hash)
    if made.is_replay:
        mark_replayed(response)
    return made.content


@router.get("/v1/invoices/{invoice_id}", summary="Show an invoice", responses=problems("forbidden", "not_found"))
async def show_invoice(caller: Read, resources: Res, invoice_id: PathId) -> InvoiceOut:
    """Scope: `read`."""
    return await invoice.show_invoice(resources, caller, invoice_id)


@router.get("/v1/invoices", summary="List your invoices", responses=problems("forbidden", "invalid_request"))
async def list_invoices(caller: Read, resources: Res, paging: Annotated[Paging, Query()]) -> Page[InvoiceOut]:
    """Scope: `read`. Newest first."""
    name = f"invoices {caller.account_id}"
    found = await invoice.list_invoices(resources, caller, after=position(paging, name), limit=paging.limit)
    return page_of(found, name)


@router.post(
    "/v1/invoices/{invoice_id}/cancel",
    summary="Cancel an invoice",
    responses=problems("forbidden", "not_found", "invoice_already_paid", "node_unavailable", "idempotency_conflict"),
)
async def cancel_invoice(
    request: Request, response: Response, caller: Receive, key: Key, resources: Res, invoice_id: PathId
) -> InvoiceOut:
    """Scope: `receive`. A cancelled or expired invoice stays as it is. A paid one cannot be cancelled."""
    cancelled = await invoice.cancel_invoice(resources, caller, invoice_id, key=key, body_hash=empty_hash(request))
    if cancelled.is_replay:
        mark_replayed(response)
    return cancelled.content
