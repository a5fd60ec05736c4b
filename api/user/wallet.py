"""Wallets over HTTP: what an account has, and everything that moved in it."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from api.access import PathId, get_resources, needs
from api.http.body import Text
from api.http.errors import problems
from api.http.paging import Page, Paging, page_of, position
from api.http.period import Period
from api.service.auth import Caller
from api.service.resources import Resources
from api.service.wallet import transaction, wallet
from api.service.wallet.transaction import TransactionOut
from api.service.wallet.wallet import WalletOut
from engine.views.transaction import TransactionFilter

router = APIRouter(tags=["wallets"])
Read = Annotated[Caller, Depends(needs("read"))]
Res = Annotated[Resources, Depends(get_resources)]


class TransactionsQuery(Paging, Period):
    """Which transactions; all conditions count together."""

    kind: Literal["payment", "invoice", "deposit", "withdrawal", "transfer", "adjustment"] | None = None
    status: Literal["pending", "settled", "failed", "cancelled", "reversed"] | None = None
    direction: Literal["in", "out"] | None = None
    text: Text | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Part of the memo, the counterparty or the reference, case-insensitive.",
        examples=["coffee"],
    )

    @property
    def name(self) -> str:
        """The list's name for its cursors: every condition."""
        return self.model_dump_json(exclude={"limit", "after"})

    @property
    def wanted(self) -> TransactionFilter:
        """The conditions."""
        return TransactionFilter(**self.model_dump(exclude={"limit", "after"}))


@router.get("/v1/wallets", summary="List your wallets", responses=problems("forbidden"))
async def list_own_wallets(caller: Read, resources: Res) -> Page[WalletOut]:
    """Scope: `read`."""
    return Page(items=await wallet.list_own_wallets(resources, caller), next_cursor=None)


@router.get("/v1/wallets/{wallet_id}", summary="Show one of your wallets", responses=problems("forbidden", "not_found"))
async def show_wallet(caller: Read, resources: Res, wallet_id: PathId) -> WalletOut:
    """Scope: `read`."""
    return await wallet.show_wallet(resources, caller, wallet_id)


@router.get(
    "/v1/wallets/{wallet_id}/transactions",
    summary="List the transactions of a wallet",
    responses=problems("forbidden", "not_found", "invalid_request"),
)
async def list_transactions(
    caller: Read, resources: Res, wallet_id: PathId, query: Annotated[TransactionsQuery, Query()]
) -> Page[TransactionOut]:
    """Scope: `read`. Newest first, one row per business event; `from` and `to` are about `created_at`, [from, to).

    A cursor belongs to its conditions: ask for every page with the same ones. A page looks at 5,000 rows at most, so
    with conditions that few rows meet it may be short, or empty, and still have a `next_cursor`.
    """
    query.check()
    name = f"transactions {wallet_id} {query.name}"
    found = await transaction.list_transactions(
        resources, caller, wallet_id, query.wanted, after=position(query, name), limit=query.limit
    )
    return page_of(found, name)
