"""The door of withdraw links for their owner. The use cases are in api/service/withdraw_link/link.py."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from api.access import PathId, get_resources, needs
from api.http.body import AmountMsat, Body, Content, Expiry, Id, JsonBody, Memo, documented
from api.http.errors import problems
from api.http.idempotency_key import mark_replayed, optional_key
from api.http.paging import Page, Paging, page_of, position
from api.service.auth import Caller
from api.service.resources import Resources
from api.service.withdraw_link import link
from api.service.withdraw_link.link import LinkOrder, LinkOut

router = APIRouter(tags=["withdraw links"])
Send = Annotated[Caller, Depends(needs("send"))]
Key = Annotated[str | None, Depends(optional_key)]
Res = Annotated[Resources, Depends(get_resources)]


class NewLinkIn(Content):
    """The amount of one claim, and how many claims."""

    wallet_id: Id
    amount_msat: AmountMsat
    uses: Annotated[int, Field(ge=1, le=1000)] = 1
    expires_at: Expiry | None = Field(default=None, description="RFC 3339. Without it, the link never expires.")
    memo: Memo | None = Field(default=None, description="Shown to whoever opens the link, and in the payments.")


@router.post(
    "/v1/withdraw-links",
    status_code=201,
    summary="Make a withdraw link",
    responses=problems("forbidden", "not_found", "invalid_request", "idempotency_conflict"),
    openapi_extra=documented(NewLinkIn, gift={"wallet_id": "wal_…", "amount_msat": 21_000_000, "memo": "a gift"}),
)
async def make_link(
    response: Response,
    caller: Send,
    key: Key,
    body: Annotated[Body[NewLinkIn], Depends(JsonBody(NewLinkIn))],
    resources: Res,
) -> LinkOut:
    """Scope: `send`. Nothing is held: each claim needs the amount and the routing fee in the wallet at its time.

    The link stops paying when the key that made it is revoked or expires.
    """
    order = LinkOrder(**body.content.model_dump(), key=key, body_hash=body.hash)
    made = await link.make_link(resources, caller, order)
    if made.is_replay:
        mark_replayed(response)
    return made.content


@router.get(
    "/v1/withdraw-links/{link_id}", summary="Show a withdraw link", responses=problems("forbidden", "not_found")
)
async def show_link(caller: Send, resources: Res, link_id: PathId) -> LinkOut:
    """Scope: `send`, because the link is as good as the money."""
    return await link.show_link(resources, caller, link_id)


@router.get(
    "/v1/withdraw-links", summary="List your withdraw links", responses=problems("forbidden", "invalid_request")
)
async def list_own_links(caller: Send, resources: Res, paging: Annotated[Paging, Query()]) -> Page[LinkOut]:
    """Scope: `send`. Newest first."""
    name = f"withdraw-links {caller.account_id}"
    return page_of(await link.list_own_links(resources, caller, position(paging, name), paging.limit), name)


@router.delete(
    "/v1/withdraw-links/{link_id}", summary="Delete a withdraw link", responses=problems("forbidden", "not_found")
)
async def delete_own_link(caller: Send, resources: Res, link_id: PathId) -> LinkOut:
    """Scope: `send`. Takes effect at once; earlier claims are paid. A repeat gives the same answer.

    Any key with this scope may delete any link of its account, because deleting spends nothing.
    """
    return await link.delete_own_link(resources, caller, link_id)
