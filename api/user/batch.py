"""Batches: payments to users of ours that one request asks for, all of them settled or none.

    known key    → the answer that it has
    new          → every destination looked up at once → workflow started, or the running one found → waited for

As with a payment (payment.py), the ids are made from account and key, and what came of it is read from Postgres. A
batch that can be read there is settled; one that was refused was never there, and the refusal is its key's answer.
"""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from api.access import PathId, get_resources, needs, waiting
from api.http.body import Body, Content, Id, JsonBody, documented
from api.http.errors import RETRY_AFTER_S, problems
from api.http.idempotency_key import mark_replayed, required_key
from api.service import batch_run
from api.service.auth import Caller, no_such
from api.service.batch_items import BatchItemIn, read_items
from api.service.deadline import Deadline
from api.service.idempotency import as_error, check_same, replaying
from api.service.resources import Resources
from api.user.limits import require_prices
from engine.bank.batch import Batch, find_batch
from engine.bank.idempotency import KeyRecord, find_key
from engine.bank.limits import find_payer
from engine.contracts import workflow_ids
from engine.contracts.batch import MAX_BODY_BYTES, MAX_ITEMS, BatchRequest
from engine.domain.errors import Invalid, InvariantBroken, Unavailable
from engine.domain.ids import AccountId, ApiKeyId, BatchId, WalletId, id_for_key
from engine.domain.money import MAX_AMOUNT_MSAT

router = APIRouter(tags=["payments"])
Send = Annotated[Caller, Depends(needs("send"))]
Read = Annotated[Caller, Depends(needs("read"))]
Res = Annotated[Resources, Depends(get_resources)]

_POLL_S = 0.15


class NewBatchIn(Content):
    """Many payments out of one wallet."""

    wallet_id: Id
    items: Annotated[list[BatchItemIn], Field(min_length=1, max_length=MAX_ITEMS)]


class BatchItemOut(BaseModel):
    """One of the payments."""

    payment_id: str | None = Field(description="None until it is settled: a batch that is refused leaves no payment.")
    status: Literal["pending", "settled"]
    destination: str
    amount_msat: int
    fee_msat: int = Field(description="Our fee.")
    memo: str | None


class BatchOut(BaseModel):
    """A batch. `settled` never changes again, and is so for every item."""

    id: str
    wallet_id: str
    status: Literal["pending", "settled"]
    total_msat: int = Field(description="Of the amounts.")
    fee_msat: int = Field(description="Of our fees, which come on top.")
    items: list[BatchItemOut] = Field(description="All of them, in the order in which they were sent.")
    created_at: datetime
    workflow_id: str = Field(description="Where operators see it.")


@router.post(
    "/v1/payments/batch",
    status_code=201,
    summary="Pay many at once",
    responses={
        202: {
            "model": BatchOut,
            "description": "Not final yet: look again at `Location` after `Retry-After`, or repeat with the same key.",
        },
        **problems(
            *("forbidden", "not_found", "invalid_request", "idempotency_key_required", "idempotency_conflict"),
            *("request_too_large", "invalid_destination", "wrong_network", "use_withdrawals", "invoice_expired"),
            *("amount_required", "amount_mismatch", "self_payment", "insufficient_funds", "limit_exceeded"),
            *("spend_limit_exceeded", "payee_closed", "price_unavailable"),
            *("account_locked", "invoice_already_paid", "invoice_cancelled"),
        ),
    },
    openapi_extra=documented(
        NewBatchIn,
        wages={
            "wallet_id": "wal_…",
            "items": [
                {"destination": "@bob", "amount_msat": 12_500_000, "memo": "May"},
                {"destination": "wallet:wal_…", "amount_msat": 9_000_000},
                {"destination": "lnbcrt…"},
            ],
        },
    ),
)
async def pay_batch(
    response: Response,
    caller: Send,
    key: Annotated[str, Depends(required_key)],
    deadline: Annotated[Deadline, Depends(waiting)],
    body: Annotated[Body[NewBatchIn], Depends(JsonBody(NewBatchIn, max_bytes=MAX_BODY_BYTES))],
    resources: Res,
) -> BatchOut:
    """Scope: `send`. Up to 1,000 payments to users and invoices of this bank: all of them, or none.

    They are settled in their order, each with its own fee, limits and payment. When a rule says no to one, nothing is
    paid, and the problem has that item's place as `item`, from 0. A body has at most 1,048,576 bytes.
    """
    account = caller.account_id
    batch_id = BatchId(id_for_key("batch", account, key))
    async with resources.reading() as conn:
        known = await find_key(conn, account, key)
        accepted = await batch_run.find_accepted(conn, batch_id)
    if known is not None:
        check_same(known.body_hash, body.hash)
        mark_replayed(response)
        with replaying():
            return await _reply(resources, account, known)
    if accepted is not None:
        check_same(bytes.fromhex(accepted.request.body_hash), body.hash)
    asked = await _check(resources, caller, key, body) if accepted is None else accepted.request
    handle, started_here = await batch_run.start(resources.temporal, asked)
    is_replay = accepted is not None or not started_here
    if is_replay:
        mark_replayed(response)
    with replaying(is_replay=is_replay):
        known = await _follow(resources, handle, account, key, deadline)
        if known is None:
            started = await _find_started(resources, account, batch_id)
            if started is not None:
                check_same(bytes.fromhex(started.request.body_hash), body.hash)
                return _accepted(response, _unopened(started))
            async with resources.reading() as conn:
                known = await find_key(conn, account, key)
        if known is None:  # ended by hand before it was opened: the same request again begins another one
            raise Unavailable(f"{handle.id} has ended and left no answer", code="temporarily_unavailable")
        check_same(known.body_hash, body.hash)
        return await _reply(resources, account, known)


@router.get("/v1/payments/batch/{batch_id}", summary="Show a batch", responses=problems("forbidden", "not_found"))
async def show_batch(caller: Read, resources: Res, batch_id: PathId) -> BatchOut:
    """Scope: `read`. With all its items. Also a batch that was accepted (202) and has not been settled yet; one that
    was refused is not there."""
    account = caller.account_id
    async with resources.reading() as conn:
        found = await find_batch(conn, account, BatchId(batch_id))
    if found is not None:
        return _shown(found)
    started = None
    if batch_id.startswith("batch_"):
        started = await _find_started(resources, account, BatchId(batch_id))
    if started is None or (started.request.batch_id, started.request.account_id) != (batch_id, account):
        raise no_such("batch")
    return _unopened(started)


async def _find_started(resources: Resources, account: AccountId, batch_id: BatchId) -> batch_run.Started | None:
    """What was accepted and is not opened, kept before anybody is told of it. Raises Unavailable."""
    async with resources.reading() as conn:
        accepted = await batch_run.find_accepted(conn, batch_id)
    if accepted is not None:
        return accepted
    started = await batch_run.find_started(resources.temporal, account, batch_id)
    if started is not None and started.request.batch_id == batch_id:
        async with resources.reading() as conn:
            return await batch_run.keep_accepted(conn, started)
    return None


async def _check(resources: Resources, caller: Caller, key: str, body: Body[NewBatchIn]) -> BatchRequest:
    """The request with every destination found. Raises what a caller may do better."""
    asked, account, wallet_id = body.content, caller.account_id, WalletId(body.content.wallet_id)
    async with resources.reading() as conn:
        payer = await find_payer(conn, account, wallet_id, ApiKeyId(caller.key_id))
        if payer is None:
            raise no_such("wallet")
        items = await read_items(conn, resources.settings, wallet_id, asked.items, datetime.now(UTC))
    await require_prices(resources, payer, "internal")
    batch = BatchRequest(
        batch_id=BatchId(id_for_key("batch", account, key)),
        account_id=account,
        wallet_id=wallet_id,
        idempotency_key=key,
        body_hash=body.hash.hex(),
        api_key_id=ApiKeyId(caller.key_id),
        items=items,
    )
    if batch.total_msat > MAX_AMOUNT_MSAT:
        raise Invalid(f"All items together are at most {MAX_AMOUNT_MSAT:,} msat.", field="items")
    return batch


async def _follow(
    resources: Resources, handle: batch_run.Handle, account: AccountId, key: str, deadline: Deadline
) -> KeyRecord | None:
    """Wait for the end, through Temporal or, where that cannot tell, through Postgres. None when it has not come."""
    outcome = await batch_run.wait_for_end(handle, deadline)
    while True:
        async with resources.reading() as conn:
            known = await find_key(conn, account, key)
        if known is not None or outcome is not None or deadline.left_s == 0:
            return known
        await asyncio.sleep(min(_POLL_S, deadline.left_s))


async def _reply(resources: Resources, account: AccountId, known: KeyRecord) -> BatchOut:
    if known.refusal is not None:
        raise as_error(known.refusal)
    async with resources.reading() as conn:
        found = await find_batch(conn, account, BatchId(known.resource_id or ""))
    if found is None:
        raise InvariantBroken("an idempotency key names a batch that is not there")
    return _shown(found)


def _accepted(response: Response, batch: BatchOut) -> BatchOut:
    response.status_code = 202
    response.headers["Location"] = f"/v1/payments/batch/{batch.id}"
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return batch


def _shown(batch: Batch) -> BatchOut:
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


def _unopened(started: batch_run.Started) -> BatchOut:
    """What was accepted, and what no worker has settled yet."""
    asked = started.request
    return BatchOut(
        id=asked.batch_id,
        wallet_id=asked.wallet_id,
        status="pending",
        total_msat=asked.total_msat,
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
            for item in asked.items
        ],
        created_at=started.at,
        workflow_id=workflow_ids.batch(asked.account_id, asked.idempotency_key),
    )
