"""Accounts and their API keys over HTTP: open, show, make, list, revoke."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.access import PathId, get_caller, get_resources, needs, needs_role
from api.http.body import Body, Content, Expiry, ExternalId, JsonBody, Text, documented
from api.http.errors import problems
from api.http.idempotency_key import mark_replayed, optional_key
from api.http.paging import Page, Paging, page_of, position
from api.service.account import account, api_key, api_key_shape
from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY, Scope
from engine.domain.limit import MAX_LIMIT_SAT, Window
from engine.domain.money import Sat
from engine.domain.username import PATTERN

router = APIRouter(tags=["accounts"])
AnyCaller = Annotated[Caller, Depends(get_caller)]
Key = Annotated[str | None, Depends(optional_key)]
Res = Annotated[Resources, Depends(get_resources)]


class NewAccountIn(Content):
    """A new account. Its bitcoin wallet is opened with it."""

    username: Annotated[Text, Field(min_length=3, max_length=50)] | None = Field(
        default=None, description=f"{PATTERN}, not beginning like an address, unique case-insensitively."
    )
    external_id: ExternalId | None = None
    level: Annotated[int, Field(ge=0, le=9)] = Field(default=0, description="Which limits apply.")


CapSat = Annotated[int, Field(ge=0, le=MAX_LIMIT_SAT)]


class SpendLimit(Content):
    """The most that all payments by one key may spend, in sat, within rolling windows. At least one window."""

    day: CapSat | None = None
    week: CapSat | None = Field(default=None, description="Seven days.")
    month: CapSat | None = Field(default=None, description="Thirty days.")

    @model_validator(mode="after")
    def _says_something(self) -> "SpendLimit":
        if not self.caps:
            raise ValueError("name a cap for day, week or month")
        return self

    @property
    def caps(self) -> dict[Window, Sat]:
        """The limits that were given, by window."""
        given: dict[Window, int | None] = {"day": self.day, "week": self.week, "month": self.month}
        return {window: Sat(cap_sat) for window, cap_sat in given.items() if cap_sat is not None}


class NewKeyIn(Content):
    """A new API key."""

    name: Annotated[Text, Field(min_length=1, max_length=100)]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=7)]
    expires_at: Expiry | None = Field(default=None, description="RFC 3339. Without it, the key never expires.")
    spend_limit_sat: SpendLimit | None = Field(default=None, description="Without it, the limits of the account.")


class RevocationQuery(BaseModel):
    """How far a revocation goes."""

    model_config = ConfigDict(extra="forbid")

    keep_made: bool = Field(
        default=False,
        description="Role `admin`: the keys that come from it stay valid. For a key that was not compromised.",
    )


@router.post(
    "/v1/accounts",
    status_code=201,
    summary="Open an account",
    responses=problems("forbidden", "invalid_request", "username_taken", "external_id_taken", "idempotency_conflict"),
    openapi_extra=documented(NewAccountIn, with_a_name={"username": "bob", "external_id": "user-7"}, bare={}),
)
async def open_account(
    response: Response,
    caller: Annotated[Caller, Depends(needs_role(*MAY["open accounts"]))],
    key: Key,
    body: Annotated[Body[NewAccountIn], Depends(JsonBody(NewAccountIn))],
    resources: Res,
) -> account.AccountOut:
    """Role: `admin`. The account's bitcoin wallet is opened with it."""
    order = account.AccountOrder(**body.content.model_dump())
    opened = await account.open_account(resources, caller, order, key=key, body_hash=body.hash)
    if opened.is_replay:
        mark_replayed(response)
    return opened.content


@router.get("/v1/account", summary="Show your own account", responses=problems("forbidden"))
async def show_own_account(caller: Annotated[Caller, Depends(needs("read"))], resources: Res) -> account.AccountOut:
    """Scope: `read`."""
    return await account.show_own_account(resources, caller)


@router.post(
    "/v1/accounts/{account_id}/api-keys",
    status_code=201,
    summary="Make an API key",
    responses=problems("forbidden", "not_found", "invalid_request", "idempotency_conflict"),
    openapi_extra=documented(
        NewKeyIn,
        shop={"name": "shop", "scopes": ["read", "receive"]},
        pocket_money={"name": "pocket", "scopes": ["send"], "spend_limit_sat": {"day": 10_000, "month": 100_000}},
    ),
)
async def make_api_key(
    response: Response,
    caller: AnyCaller,
    key: Key,
    body: Annotated[Body[NewKeyIn], Depends(JsonBody(NewKeyIn))],
    resources: Res,
    account_id: PathId,
) -> api_key_shape.NewKeyOut:
    """Role: `admin`, or any key of the account for a subset of its own scopes, expiring no later than itself.

    `key` is shown once: a replay has null there.
    """
    asked = body.content
    order = api_key_shape.KeyOrder(
        name=asked.name,
        scopes=asked.scopes,
        expires_at=asked.expires_at,
        spend_limit_sat=asked.spend_limit_sat.caps if asked.spend_limit_sat else None,
    )
    made = await api_key.make_api_key(resources, caller, account_id, order, key=key, body_hash=body.hash)
    if made.is_replay:
        mark_replayed(response)
    return made.content


@router.get(
    "/v1/accounts/{account_id}/api-keys",
    summary="List the account's API keys",
    responses=problems("forbidden", "not_found", "invalid_request"),
)
async def list_api_keys(
    caller: AnyCaller, resources: Res, account_id: PathId, paging: Annotated[Paging, Query()]
) -> Page[api_key_shape.KeyOut]:
    """Role: `admin`, or scope `read` of the account. Newest first, revoked ones too."""
    name = f"api-keys {account_id}"
    found = await api_key.list_api_keys(resources, caller, account_id, after=position(paging, name), limit=paging.limit)
    return page_of(found, name)


@router.delete(
    "/v1/accounts/{account_id}/api-keys/{key_id}",
    summary="Revoke an API key",
    responses=problems("forbidden", "not_found"),
)
async def revoke_api_key(
    caller: AnyCaller, resources: Res, account_id: PathId, key_id: PathId, query: Annotated[RevocationQuery, Query()]
) -> api_key_shape.KeyOut:
    """Role: `admin`, or a key of the account that has all scopes of the revoked key.

    A key with a spend limit can revoke, of the keys that send, only itself.
    Takes effect at once, also for all keys that come from it: the keys that it made, the keys that those made, and so
    on, on any account. A repeat gives the same answer.
    """
    return await api_key.revoke_api_key(resources, caller, account_id, key_id, keep_made=query.keep_made)
