"""The answer to a request for a batch: shown from its rows, or from its request while no worker has opened it.

A batch that has rows is settled. A batch that was refused has none: the refusal is the answer of its key.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from api.service.batch.batch_run import Started
from engine.bank.batch import Batch
from engine.contracts import workflow_ids


class BatchItemOut(BaseModel):
    """One of the payments."""

    payment_id: str | None = Field(description="null until settled. A refused batch leaves no payment.")
    status: Literal["pending", "settled"]
    destination: str
    amount_msat: int
    fee_msat: int = Field(description="Our fee.")
    memo: str | None


class BatchOut(BaseModel):
    """A batch. `settled` is final, and then every item is settled."""

    id: str
    wallet_id: str
    status: Literal["pending", "settled"]
    total_msat: int = Field(description="The sum of the amounts.")
    fee_msat: int = Field(description="The sum of our fees, which come on top.")
    items: list[BatchItemOut] = Field(description="All of them, in the order in which they were sent.")
    created_at: datetime
    workflow_id: str = Field(description="The Temporal workflow, for operators.")

    @property
    def is_final(self) -> bool:
        """Whether the batch never changes again."""
        return self.status == "settled"


def show(batch: Batch) -> BatchOut:
    """A batch from its rows."""
    return BatchOut(
        id=batch.id,
        wallet_id=batch.wallet_id,
        status="settled",
        total_msat=batch.total_msat,
        fee_msat=sum(item.fee_msat for item in batch.items),
        items=[
            BatchItemOut(
                payment_id=item.payment_id,
                status="settled",
                destination=item.destination,
                amount_msat=item.amount_msat,
                fee_msat=item.fee_msat,
                memo=item.memo,
            )
            for item in batch.items
        ],
        created_at=batch.created_at,
        workflow_id=batch.workflow_id,
    )


def show_unopened(started: Started) -> BatchOut:
    """A batch from its request, while it has no rows."""
    request = started.request
    return BatchOut(
        id=request.batch_id,
        wallet_id=request.wallet_id,
        status="pending",
        total_msat=request.total_msat,
        fee_msat=0,
        items=[
            BatchItemOut(
                payment_id=None,
                status="pending",
                destination=item.destination,
                amount_msat=item.amount_msat,
                fee_msat=0,
                memo=item.memo,
            )
            for item in request.items
        ],
        created_at=started.at,
        workflow_id=workflow_ids.batch(request.account_id, request.idempotency_key),
    )
