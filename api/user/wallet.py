"""Wallets: what an account has, and everything that moved in it."""

import re
from datetime import datetime
from operator import itemgetter
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from api.access import PathId, get_resources, needs
from api.http.body import Text
from api.http.errors import problems
from api.http.paging import MAX_LIMIT, Page, Paging, cursor, paged, position
from api.http.period import Period
from api.service.auth import Caller, no_such
from api.service.resources import Resources
from engine.bank.accounts import Wallet, list_wallets
from engine.domain.ids import AccountId
from engine.ledger.database import Connection, translated
from engine.views.balances import get_balance

router = APIRouter(tags=["wallets"])
Read = Annotated[Caller, Depends(needs("read"))]
Res = Annotated[Resources, Depends(get_resources)]

_LOOK = 5_000
"""So many rows are looked at for one page, whatever the conditions; a search goes on with the next one."""
_PARTS = ("transactions_paid", "transactions_paid_by_users", "transactions_received", "transactions_entered")
_PART = """
(SELECT id, kind, direction, status, amount_msat, fee_msat, memo, counterparty, created_at, settled_at, reference, key
   FROM bank.{part}
  WHERE wallet_id = $1 AND (created_at, key) < (coalesce($2::timestamptz, 'infinity'), coalesce($3, ''))
    AND created_at >= coalesce($4::timestamptz, '-infinity') AND created_at < coalesce($5::timestamptz, 'infinity')
  ORDER BY created_at DESC, key DESC LIMIT {look})"""
# Each part in the order of its index, merged: a page is read from their ends, and no further than it is long.
_SEEN = f"""
SELECT * FROM ({" UNION ALL ".join(_PART.format(part=part, look=_LOOK) for part in _PARTS)}) parts
 ORDER BY created_at DESC, key DESC LIMIT {_LOOK}"""  # noqa: S608 - constant
# A limit that the planner can see: with a parameter it would sort the whole wallet for a page.
_TRANSACTIONS = f"""
SELECT id, kind, direction, status, amount_msat, fee_msat, memo, counterparty, created_at, settled_at, reference, key
  FROM ({_SEEN}) seen
 WHERE ($6::text IS NULL OR kind = $6) AND ($7::text IS NULL OR status = $7) AND ($8::text IS NULL OR direction = $8)
   AND ($9::text IS NULL OR memo ILIKE $9 OR counterparty ILIKE $9 OR reference ILIKE $9)
 ORDER BY created_at DESC, key DESC LIMIT {MAX_LIMIT + 1}"""  # noqa: S608 - constant
_LAST_SEEN = f"""
SELECT created_at, key, count(*) OVER () AS seen FROM ({_SEEN}) seen
 ORDER BY created_at, key LIMIT 1"""  # noqa: S608 - constant


class WalletOut(BaseModel):
    """A wallet; `balance = available + held`, and what is incoming is not its own yet."""

    id: str = Field(examples=["wal_01k5y8z3c9m4t7q2v6x1b0n8r5d"])
    account_id: str
    currency: str = Field(examples=["BTC"])
    available_msat: int = Field(description="What can be spent now.", examples=[1_250_000])
    held_msat: int = Field(description="Held for payments that are on their way.", examples=[0])
    incoming_msat: int = Field(description="Announced, but not to be counted on.", examples=[0])
    balance_msat: int = Field(examples=[1_250_000])


class TransactionOut(BaseModel):
    """One business event as this wallet sees it."""

    id: str
    kind: str = Field(description="payment, invoice, deposit, withdrawal, transfer or adjustment")
    direction: str = Field(description="in or out")
    status: str = Field(description="pending, settled, failed, cancelled or reversed")
    amount_msat: int = Field(description="What was paid. The wallet changes by amount − fee (in), amount + fee (out).")
    fee_msat: int
    memo: str | None
    counterparty: str | None
    created_at: datetime
    settled_at: datetime | None
    reference: str = Field(description="The id of the payment or invoice.")


class TransactionsQuery(Paging, Period):
    """Which transactions; all conditions count together."""

    kind: Literal["payment", "invoice", "deposit", "withdrawal", "transfer", "adjustment"] | None = None
    status: Literal["pending", "settled", "failed", "cancelled", "reversed"] | None = None
    direction: Literal["in", "out"] | None = None
    text: Text | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Part of the memo, the counterparty or the reference, whatever the case.",
        examples=["coffee"],
    )

    @property
    def name(self) -> str:
        """The list's name for its cursors: every condition."""
        return self.model_dump_json(exclude={"limit", "after"})

    @property
    def is_narrow(self) -> bool:
        """Whether rows that were looked at may be left out."""
        return any((self.kind, self.status, self.direction, self.text))

    @property
    def pattern(self) -> str | None:
        """`text` as a pattern of LIKE in which nothing is special."""
        if self.text is None:
            return None
        literal = re.sub(r"([%_\\])", r"\\\1", self.text)
        return f"%{literal}%"


@router.get("/v1/wallets", summary="List your wallets", responses=problems("forbidden"))
async def list_own_wallets(caller: Read, resources: Res) -> Page[WalletOut]:
    """Scope: `read`."""
    async with resources.reading() as conn:
        return Page(items=await read_wallets(conn, caller.account_id), next_cursor=None)


@router.get("/v1/wallets/{wallet_id}", summary="Show one of your wallets", responses=problems("forbidden", "not_found"))
async def show_wallet(caller: Read, resources: Res, wallet_id: PathId) -> WalletOut:
    """Scope: `read`."""
    async with resources.reading() as conn:
        return await _with_balance(conn, await own_wallet(conn, caller.account_id, wallet_id))


@router.get(
    "/v1/wallets/{wallet_id}/transactions",
    summary="List what moved in a wallet",
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
    frame = (wallet_id, *position(query, name), query.begins_at, query.ends_at)
    async with resources.reading() as conn:
        await own_wallet(conn, caller.account_id, wallet_id)
        rows = await conn.fetch(_TRANSACTIONS, *frame, query.kind, query.status, query.direction, query.pattern)
        page, following = paged(rows, query, name, itemgetter("created_at", "key"))
        if following is None and query.is_narrow:
            following = await _look_on(conn, frame, name)
    return Page(items=[TransactionOut(**row) for row in page], next_cursor=following)


async def _look_on(conn: Connection, frame: tuple[object, ...], name: str) -> str | None:
    """The cursor of the last row that a page looked at, if there may be more behind it."""
    row = await conn.fetchrow(_LAST_SEEN, *frame)
    return None if row is None or row["seen"] < _LOOK else cursor(row["created_at"], row["key"], name)


async def own_wallet(conn: Connection, account_id: AccountId, wallet_id: str) -> Wallet:
    """The wallet, if it is this account's. Raises NotFound otherwise, whoever's it is."""
    with translated():
        row = await conn.fetchrow(
            """SELECT id, account_id, currency, ledger_account_id FROM bank.wallets
                WHERE id = $1 AND account_id = $2""",
            wallet_id,
            account_id,
        )
    if row is None:
        raise no_such("wallet")
    return Wallet(**row)


async def read_wallets(conn: Connection, account_id: AccountId) -> list[WalletOut]:
    """All wallets of the account, with what they hold."""
    return [await _with_balance(conn, wallet) for wallet in await list_wallets(conn, account_id)]


async def _with_balance(conn: Connection, wallet: Wallet) -> WalletOut:
    balance = await get_balance(conn, wallet.ledger_account_id)
    return WalletOut(
        id=wallet.id,
        account_id=wallet.account_id,
        currency=wallet.currency,
        available_msat=balance.available_msat,
        held_msat=balance.held_out_msat,
        incoming_msat=balance.incoming_msat,
        balance_msat=balance.available_msat + balance.held_out_msat,
    )
