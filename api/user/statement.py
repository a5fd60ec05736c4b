"""A wallet's statement over HTTP, as JSON in pages or as one CSV."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from api.access import PathId, get_resources, needs
from api.http.download import stream
from api.http.errors import problems
from api.http.paging import Paging, next_cursor, position
from api.http.period import Period
from api.service.auth import Caller
from api.service.resources import Resources
from api.service.wallet import statement
from engine.domain.errors import Invalid
from engine.views.statement import COLUMNS, Movement

router = APIRouter(tags=["wallets"])
_DOWNLOADS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/csv": {
                "schema": {"type": "string"},
                "example": ",".join(COLUMNS)
                + "\r\n2026-01-01T00:00:00.000000Z,opening,0,0,0,,,,\r\n"
                + "2026-02-01T00:00:00.000000Z,closing,0,0,0,,,,\r\n",
            }
        }
    }
}


class StatementQuery(Paging, Period):
    """Which statement, and in which format. `limit` and `after` are for JSON; CSV is always whole."""

    format: Literal["json", "csv"] = "json"
    limit: int = Field(default=1_000, ge=1, le=1_000, description="How many movements at most in one JSON answer.")


class MovementOut(BaseModel):
    """One settled change of the wallet."""

    time: datetime
    kind: str = Field(description="payment, invoice, deposit, withdrawal or adjustment", examples=["payment"])
    amount_msat: int = Field(description="Received (+) or sent (−), after all fees.", examples=[-100_450])
    fee_msat: int = Field(
        description="The fee, included in the amount sent or deducted from the amount received.", examples=[450]
    )
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
    next_cursor: str | None = Field(description="For the next movements; null on the last page.")


@router.get(
    "/v1/wallets/{wallet_id}/statement",
    summary="Show a wallet's statement",
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

    Opening + movements = closing, for any period. All pages of one statement show the same period and balances,
    whatever is posted meanwhile. CSV has a line `opening`, the movements and a line `closing`, both with the amount 0.
    """
    query.check()
    if query.format == "csv":
        if query.after is not None:
            raise Invalid("CSV is always whole: 'after' is for JSON.", field="after")
        pieces = await statement.export_statement(resources, caller, wallet_id, query.begins_at, query.ends_at)
        return await stream(pieces, media_type="text/csv", file_name=f"{wallet_id}.csv")
    name = f"statement {wallet_id} {query.model_dump_json(include={'begins_at', 'ends_at'})}"
    page = await statement.give_statement(
        resources,
        caller,
        wallet_id,
        query.begins_at,
        query.ends_at,
        after=position(query, name),
        limit=query.limit,
    )
    period = page.period
    return StatementOut(
        wallet_id=page.wallet.id,
        currency=page.wallet.currency,
        begins_at=period.begins_at,
        ends_at=period.ends_at,
        opening_msat=period.opening_msat,
        closing_msat=period.closing_msat,
        movements=[_shown(movement) for movement in page.movements.rows],
        next_cursor=next_cursor(page.movements.following, name),
    )


def _shown(movement: Movement) -> MovementOut:
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
