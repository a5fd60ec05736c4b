"""What moved in a wallet, one row per business event."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.service.auth import Caller
from api.service.resources import Resources
from api.service.wallet.wallet import own_wallet
from engine.domain.page import START, Position, Slice
from engine.views import transaction
from engine.views.transaction import TransactionFilter


class TransactionOut(BaseModel):
    """One business event as this wallet sees it."""

    id: str
    kind: str = Field(description="payment, invoice, deposit, withdrawal, transfer or adjustment")
    direction: str = Field(description="in or out")
    status: str = Field(description="pending, settled, failed, cancelled or reversed")
    amount_msat: int = Field(
        description="The amount paid. The wallet changes by amount − fee (in) or amount + fee (out)."
    )
    fee_msat: int
    memo: str | None
    counterparty: str | None
    created_at: datetime
    settled_at: datetime | None
    reference: str = Field(description="The id of the payment, invoice, deposit or correction.")


async def list_transactions(
    resources: Resources,
    caller: Caller,
    wallet_id: str,
    wanted: TransactionFilter,
    *,
    after: Position = START,
    limit: int,
) -> Slice[TransactionOut]:
    """One page, newest first. Raises NotFound for a wallet of another account."""
    caller.require("read")
    async with resources.reading() as conn:
        await own_wallet(conn, caller.account_id, wallet_id)
        found = await transaction.list_transactions(conn, wallet_id, wanted, after, limit)
    return found.map(_shown)


def _shown(row: dict[str, Any]) -> TransactionOut:
    return TransactionOut(**row)
