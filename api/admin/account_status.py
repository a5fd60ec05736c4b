"""Accounts as operators see them: found, locked and unlocked, given another level, closed.

    active     everything
    locked     reads, makes invoices and receives; sends nothing. What is on its way ends as it would have
    closed     reads. For ever

Support may lock and unlock; levels and closing are an administrator's. Nobody changes his own account, by whichever of
his keys or of those that come from them; the bootstrap key, which has no account, is the way out. Each change leaves a
line in the audit trail, in its own transaction.
"""

from datetime import datetime
from operator import attrgetter
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field, model_validator

from api.access import PathId, get_resources, needs_role
from api.http.body import Body, Content, JsonBody, Text, documented
from api.http.codes import Forbidden
from api.http.errors import problems
from api.http.paging import Page, Paging, paged, position
from api.service.auth import Caller, no_such, still_may_in_tx
from api.service.resources import Resources
from api.user.wallet import WalletOut
from engine.bank import account_status
from engine.bank.account_status import Status
from engine.bank.accounts import comes_from_account
from engine.bank.audit import record_in_tx
from engine.domain.ids import AccountId, ApiKeyId
from engine.ledger.database import transaction

router = APIRouter(prefix="/v1/admin/accounts", tags=["operators"])
Support = Annotated[Caller, Depends(needs_role("support"))]
Reader = Annotated[Caller, Depends(needs_role("support", "finance"))]
Res = Annotated[Resources, Depends(get_resources)]
Level = Annotated[int, Field(ge=0, le=9)]


class SearchQuery(Paging):
    """Which accounts; all conditions count together."""

    q: Text | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="How the username (whatever the case), the external id or the id begins.",
        examples=["ali"],
    )
    status: Status | None = None
    level: int | None = Field(default=None, ge=0, le=9)

    @property
    def name(self) -> str:
        """The list's name for its cursors: every condition."""
        return "accounts " + self.model_dump_json(exclude={"limit", "after"})


class ChangeIn(Content):
    """What is to be another way."""

    status: Status | None = Field(
        default=None, description="Closing is final, and needs an account with nothing on it."
    )
    level: Level | None = Field(default=None, description="Which limits apply.")
    note: Annotated[Text, Field(min_length=1, max_length=1000, pattern=r"\S")] | None = Field(
        default=None, description="Why; kept in the audit trail."
    )

    @model_validator(mode="after")
    def _says_something(self) -> "ChangeIn":
        if self.status is None and self.level is None:
            raise ValueError("name a status or a level")
        return self


class OperatorAccountOut(BaseModel):
    """A user of the bank, with what is in its wallet."""

    id: str = Field(examples=["acct_4t7q2v6x1b0n8r5d01k5y8z3c"])
    username: str | None
    external_id: str | None
    level: int
    status: Status
    wallets: list[WalletOut]
    created_at: datetime


@router.get("", summary="Search accounts", responses=problems("forbidden", "invalid_request"))
async def search_accounts(
    _caller: Reader, resources: Res, query: Annotated[SearchQuery, Query()]
) -> Page[OperatorAccountOut]:
    """Role: `support` or `finance`. Newest first.

    A cursor belongs to its conditions: ask for every page with the same ones.
    """
    async with resources.reading() as conn:
        rows = await account_status.search(
            conn,
            text=query.q,
            status=query.status,
            level=query.level,
            before=position(query, query.name),
            limit=query.limit + 1,
        )
    page, following = paged(rows, query, query.name, attrgetter("created_at", "id"))
    return Page(items=[_shown(row) for row in page], next_cursor=following)


@router.get("/{account_id}", summary="Show an account", responses=problems("forbidden", "not_found"))
async def show_account(_caller: Reader, resources: Res, account_id: PathId) -> OperatorAccountOut:
    """Role: `support` or `finance`."""
    return await _read(resources, AccountId(account_id))


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

    A locked account still receives, and its payments that are on their way settle or are given back. Closing cancels
    its open invoices; money that still comes from outside waits in suspense for an operator.
    """
    asked = body.content
    if not caller.is_admin and (asked.level is not None or asked.status == "closed"):
        raise Forbidden("Levels and closing need a key with the scope 'admin'.", scope="admin")
    account = AccountId(account_id)
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        if await comes_from_account(conn, ApiKeyId(caller.key_id), account):
            raise Forbidden("You cannot change your own account: another operator must.", code="own_account")
        changes = await account_status.change_in_tx(conn, account, status=asked.status, level=asked.level)
        for change in changes:
            await record_in_tx(conn, caller.act(change.action, account_id=account, note=asked.note, **change.detail))
    return await _read(resources, account)


async def _read(resources: Resources, account_id: AccountId) -> OperatorAccountOut:
    async with resources.reading() as conn:
        row = await account_status.find_row(conn, account_id)
    if row is None:
        raise no_such("account")
    return _shown(row)


def _shown(row: account_status.AccountRow) -> OperatorAccountOut:
    wallet = WalletOut(
        id=row.wallet_id,
        account_id=row.id,
        currency=row.currency,
        available_msat=row.balance_msat - row.held_msat,
        held_msat=row.held_msat,
        incoming_msat=row.incoming_msat,
        balance_msat=row.balance_msat,
    )
    return OperatorAccountOut(
        id=row.id,
        username=row.username,
        external_id=row.external_id,
        level=row.level,
        status=row.status,
        wallets=[wallet],
        created_at=row.created_at,
    )
