"""The door of on-chain addresses. The use cases are in api/service/address."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from api.access import PathId, get_resources, needs
from api.http.body import Body, Content, Id, JsonBody, documented
from api.http.errors import problems
from api.http.idempotency_key import mark_replayed, optional_key
from api.http.markup import qr_file
from api.http.paging import Page, Paging, page_of, position
from api.service.address import address as addresses
from api.service.address import read
from api.service.address.answer import AddressOut
from api.service.auth import Caller
from api.service.resources import Resources

router = APIRouter(tags=["addresses"])
Receive = Annotated[Caller, Depends(needs("receive"))]
Read = Annotated[Caller, Depends(needs("read"))]
Key = Annotated[str | None, Depends(optional_key)]
Res = Annotated[Resources, Depends(get_resources)]


class NewAddressIn(Content):
    """The wallet that deposits are credited to."""

    wallet_id: Id
    invoice_id: Id | None = Field(
        default=None,
        description="An open invoice of this wallet. The URI then has its amount, and the invoice as the other way.",
    )


@router.post(
    "/v1/addresses",
    status_code=201,
    summary="Make an address",
    responses=problems(
        *("forbidden", "not_found", "invalid_request", "idempotency_conflict", "account_locked", "no_address_ready"),
        *("invoice_already_paid", "invoice_cancelled", "invoice_expired"),
    ),
    openapi_extra=documented(
        NewAddressIn, deposit={"wallet_id": "wal_…"}, both_ways={"wallet_id": "wal_…", "invoice_id": "inv_…"}
    ),
)
async def make_address(
    response: Response,
    caller: Receive,
    key: Key,
    body: Annotated[Body[NewAddressIn], Depends(JsonBody(NewAddressIn))],
    resources: Res,
) -> AddressOut:
    """Scope: `receive`. The address is this wallet's alone, for ever, and may be paid any number of times.

    A wallet with very many addresses that nobody has paid gets its oldest unpaid address again.
    """
    order = addresses.AddressOrder(**body.content.model_dump())
    made = await addresses.make_address(resources, caller, order, key=key, body_hash=body.hash)
    if made.is_replay:
        mark_replayed(response)
    return made.content


@router.get("/v1/addresses", summary="List your addresses", responses=problems("forbidden", "invalid_request"))
async def list_addresses(caller: Read, resources: Res, paging: Annotated[Paging, Query()]) -> Page[AddressOut]:
    """Scope: `read`. Newest first."""
    name = f"addresses {caller.account_id}"
    found = await read.list_addresses(resources, caller, after=position(paging, name), limit=paging.limit)
    return page_of(found, name)


@router.get("/v1/addresses/{address}", summary="Show an address", responses=problems("forbidden", "not_found"))
async def show_address(caller: Read, resources: Res, address: PathId) -> AddressOut:
    """Scope: `read`."""
    return await read.show_address(resources, caller, address)


@router.get(
    "/v1/addresses/{address}/qr.svg",
    summary="Draw an address as a QR code",
    responses=problems("forbidden", "not_found"),
    response_class=Response,  # generators of clients know no SVG: its content is not described
)
async def draw_address(caller: Read, resources: Res, address: PathId) -> Response:
    """Scope: `read`. The QR code of its payment URI, as SVG (`image/svg+xml`)."""
    found = await read.show_address(resources, caller, address)
    return Response(qr_file(found.bip21), media_type="image/svg+xml")
