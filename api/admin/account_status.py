"""Accounts for operators over HTTP: search, show, and change status or level."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import Field, model_validator

from api.access import PathId, get_resources, needs_role
from api.http.body import Body, Content, JsonBody, Text, documented
from api.http.errors import problems
from api.http.paging import Page, Paging, page_of, position
from api.service.account import account_status
from api.service.account.account_status import OperatorAccountOut
from api.service.auth import Caller
from api.service.resources import Resources
from api.service.role import MAY
from engine.bank.account.account_status import Status
from engine.views.account import AccountFilter

router = APIRouter(prefix="/v1/admin/accounts", tags=["operators"])
Support = Annotated[Caller, Depends(needs_role(*MAY["lock accounts"]))]
Reader = Annotated[Caller, Depends(needs_role(*MAY["find accounts"]))]
Res = Annotated[Resources, Depends(get_resources)]
Level = Annotated[int, Field(ge=0, le=9)]


class SearchQuery(Paging):
    """Which accounts; all conditions count together."""

    q: Text | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="The beginning of the username (case-insensitive), the external id or the id.",
        examples=["ali"],
    )
    status: Status | None = None
    level: int | None = Field(default=None, ge=0, le=9)

    @property
    def name(self) -> str:
        """The list's name for its cursors: every condition."""
        return "accounts " + self.model_dump_json(exclude={"limit", "after"})

    @property
    def wanted(self) -> AccountFilter:
        """The conditions."""
        return AccountFilter(text=self.q, status=self.status, level=self.level)


class ChangeIn(Content):
    """What to change."""

    status: Status | None = Field(default=None, description="Closing is final and needs an empty account.")
    level: Level | None = Field(default=None, description="Which limits apply.")
    note: Annotated[Text, Field(min_length=1, max_length=1000, pattern=r"\S")] | None = Field(
        default=None, description="Why; kept in the audit trail."
    )

    @model_validator(mode="after")
    def _says_something(self) -> "ChangeIn":
        if self.status is None and self.level is None:
            raise ValueError("name a status or a level")
        return self


@router.get("", summary="Search accounts", responses=problems("forbidden", "invalid_request"))
async def search_accounts(
    caller: Reader, resources: Res, query: Annotated[SearchQuery, Query()]
) -> Page[OperatorAccountOut]:
    """Role: `support` or `finance`. Newest first.

    A cursor belongs to its conditions: ask for every page with the same ones.
    """
    found = await account_status.search_accounts(
        resources, caller, query.wanted, after=position(query, query.name), limit=query.limit
    )
    return page_of(found, query.name)


@router.get("/{account_id}", summary="Show an account", responses=problems("forbidden", "not_found"))
async def show_account(caller: Reader, resources: Res, account_id: PathId) -> OperatorAccountOut:
    """Role: `support` or `finance`."""
    return await account_status.show_account(resources, caller, account_id)


@router.patch(
    "/{account_id}",
    summary="Lock, unlock or close an account, or change its level",
    responses=problems(
        *("forbidden", "own_account", "not_found", "invalid_request", "account_closed", "account_not_empty"),
        "request_too_large",
    ),
    openapi_extra=documented(
        ChangeIn,
        lock={"status": "locked", "note": "the owner has lost a phone"},
        close={"status": "closed", "note": "as the owner asked"},
        verified={"level": 2, "note": "papers seen"},
    ),
)
async def change_account(
    caller: Support,
    resources: Res,
    account_id: PathId,
    body: Annotated[Body[ChangeIn], Depends(JsonBody(ChangeIn))],
) -> OperatorAccountOut:
    """Role: `support`; closing and changing the level need `admin`. Not your own account. A repeat changes nothing.

    A locked account still receives, and its payments in flight settle or are released. Closing cancels its open
    invoices; money that still comes from outside waits in suspense for an operator.
    """
    asked = body.content
    return await account_status.change_account(
        resources, caller, account_id, status=asked.status, level=asked.level, note=asked.note
    )
