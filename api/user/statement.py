"""A wallet's statement: opening balance, every settled movement with the balance after it, closing balance."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from api.access import PathId, get_resources, needs
from api.http.download import stream
from api.http.errors import problems
from api.http.paging import Paging, cursor, position
from api.http.period import Period
from api.service.auth import Caller
from api.service.resources import Resources
from api.user.wallet import own_wallet
from engine.domain.errors import Invalid
from engine.views import statement

router = APIRouter(tags=["wallets"])
_VERSIONS = re.compile(r"(\d{1,18})\.(\d{1,18})\.(\d{1,18})", re.ASCII)
_DOWNLOADS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/csv": {
                "schema": {"type": "string"},
                "example": ",".join(statement.COLUMNS)
                + "\r\n2026-01-01T00:00:00.000000Z,opening,0,0,0,,,,\r\n"
                + "2026-02-01T00:00:00.000000Z,closing,0,0,0,,,,\r\n",
            }
        }
    }
}


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a cursor says: the frame of the first answer, and up to which version its movements have been given."""

    ends_at: datetime
    frame: tuple[int, int]
    after: int


class StatementQuery(Paging, Period):
    """Which statement, and how it is wanted. `limit` and `after` are of JSON; CSV is always whole."""

    format: Literal["json", "csv"] = "json"
    limit: int = Field(default=1_000, ge=1, le=1_000, description="How many movements at most in one JSON answer.")


class MovementOut(BaseModel):
    """One settled change of the wallet."""

    time: datetime
    kind: str = Field(description="payment, invoice, deposit, withdrawal or adjustment", examples=["payment"])
    amount_msat: int = Field(description="What came (+) or went (−), after all fees.", examples=[-100_450])
    fee_msat: int = Field(description="The fee in what went, or taken before it came.", examples=[450])
    balance_msat: int = Field(description="The balance after it.", examples=[149_550])
    counterparty: str | None
    memo: str | None
    reference: str | None = Field(description="The id of the payment or invoice.")
    transfer: str = Field(description="The reference of the transfer in the books.", examples=["ln:3f…:settle"])


class StatementOut(BaseModel):
    """[from, to): `opening_msat` + all movements = `closing_msat`. Held amounts are not part of it."""

    wallet_id: str
    currency: str = Field(examples=["BTC"])
    begins_at: datetime = Field(serialization_alias="from")
    ends_at: datetime = Field(serialization_alias="to")
    opening_msat: int = Field(examples=[250_000])
    closing_msat: int = Field(examples=[149_550])
    movements: list[MovementOut] = Field(description="Oldest first.")
    next_cursor: str | None = Field(description="For the movements that follow; null when these are the last.")


@router.get(
    "/v1/wallets/{wallet_id}/statement",
    summary="Give a wallet's statement",
    response_model=StatementOut,
    responses={**problems("forbidden", "not_found", "invalid_request"), **_DOWNLOADS},
)
async def give_statement(
    caller: Annotated[Caller, Depends(needs("read"))],
    resources: Annotated[Resources, Depends(get_resources)],
    wallet_id: PathId,
    query: Annotated[StatementQuery, Query()],
) -> StatementOut | Response:
    """Scope: `read`. From the opening of the wallet unless `from` is given, until now unless `to` is.

    Opening + movements = closing, for any two moments. The pages of one statement have the same frame, whatever is
    posted meanwhile. CSV has a line `opening`, the movements and a line `closing`, both with the amount 0.
    """
    query.check()
    name = f"statement {wallet_id} {query.model_dump_json(include={'begins_at', 'ends_at'})}"
    seen = _seen(query, name)
    async with resources.reading() as conn:
        wallet = await own_wallet(conn, caller.account_id, wallet_id)
        account_id = wallet.ledger_account_id
        ends_at = seen.ends_at if seen else query.ends_at
        period = await statement.read_period(conn, account_id, query.begins_at, ends_at, seen.frame if seen else None)
        if query.format == "json":
            after = seen.after if seen else period.opening_version
            found = await statement.list_movements(
                conn,
                account_id,
                after_version=after,
                closing_version=period.closing_version,
                limit=query.limit + 1,
            )
    if query.format == "csv":
        pieces = statement.csv_statement(resources.pool, account_id, period)
        return await stream(pieces, media_type="text/csv", file_name=f"{wallet_id}.csv")
    page = found[: query.limit]
    following = None
    if len(found) > len(page):
        place = f"{period.opening_version}.{page[-1].version}.{period.closing_version}"
        following = cursor(period.ends_at, place, name)
    return StatementOut(
        wallet_id=wallet.id,
        currency=wallet.currency,
        begins_at=period.begins_at,
        ends_at=period.ends_at,
        opening_msat=period.opening_msat,
        closing_msat=period.closing_msat,
        movements=[_shown(movement) for movement in page],
        next_cursor=following,
    )


def _seen(query: StatementQuery, name: str) -> _Seen | None:
    """The cursor, read. Raises Invalid for one that is not of this statement."""
    if query.after is None:
        return None
    if query.format == "csv":
        raise Invalid("CSV is always whole: 'after' is for JSON.", field="after")
    ends_at, place = position(query, name)
    versions = _VERSIONS.fullmatch(place or "")
    if ends_at is None or versions is None:
        raise Invalid("'after' is not a cursor of this statement.", field="after")
    opening, after, closing = (int(text) for text in versions.groups())
    if not opening <= after <= closing:
        raise Invalid("'after' is not a cursor of this statement.", field="after")
    return _Seen(ends_at, (opening, closing), after)


def _shown(movement: statement.Movement) -> MovementOut:
    return MovementOut(
        time=movement.posted_at,
        kind=movement.kind,
        amount_msat=movement.amount_msat,
        fee_msat=movement.fee_msat,
        balance_msat=movement.balance_msat,
        counterparty=movement.counterparty,
        memo=movement.memo,
        reference=movement.reference,
        transfer=movement.transfer,
    )
