"""Payments: money out of a wallet. The request is checked here; everything that moves money is in its workflow.

    known key    → the answer that it has, waited for if it is still open
    new          → destination and amount checked → workflow started, or the running one found → waited for

The workflow's id is made from account and key, and so is the payment's: a repeat finds the same one, whichever process
it meets and whatever died in between. What came of it is read from Postgres, which outlives Temporal's memory. Waiting
changes nothing: a caller that leaves, or an answer that comes too late, leaves the payment on its way.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from api import payment_run
from api.body import AmountMsat, Body, Content, ExternalId, Id, JsonBody, Memo, Text, documented
from api.deps import Caller, PathId, Services, get_services, needs, no_such
from api.destination import Resolved, amount_to_pay, is_under_way, resolve, with_invoice
from api.errors import RETRY_AFTER_S, problems, refused
from api.idempotency import as_error, check_same, mark_replayed, required_key
from api.limits import require_prices
from api.paging import Page, Paging, paged, position
from api.waiting import Deadline, waiting
from engine.contracts.payment import PaymentRequest
from engine.contracts.queues import payment_workflow_id
from engine.domain.destinations import MAX_LENGTH
from engine.domain.errors import Invalid, InvariantBroken, Unavailable
from engine.domain.fees import default_routing_cap
from engine.domain.ids import AccountId, ApiKeyId, PaymentId, WalletId, id_for_key
from engine.domain.money import MAX_AMOUNT_MSAT, Msat
from engine.ledger.lane import find_boarded, note_boarded
from engine.ledger.limits import Payer, find_payer

router = APIRouter(tags=["payments"])
Send = Annotated[Caller, Depends(needs("send"))]
Read = Annotated[Caller, Depends(needs("read"))]
Svc = Annotated[Services, Depends(get_services)]

_POLL_S, _NODE_SILENCE_S = 0.15, 30
_COLUMNS = """p.id, p.wallet_id, p.kind, p.status, p.destination, p.amount_msat, p.fee_msat, p.max_fee_msat,
    p.payment_hash, p.preimage, p.memo, p.external_id, p.failure_code, p.failure_detail, p.created_at, p.settled_at,
    p.workflow_id, w.reason, w.detail AS wait_detail, w.needs_operator, w.since"""
_FROM = "bank.payments p LEFT JOIN bank.payment_waits w ON w.payment_id = p.id AND p.status = 'pending'"


class NewPaymentIn(Content):
    """Whom to pay, and from which wallet."""

    wallet_id: Id
    destination: Annotated[Text, Field(min_length=1, max_length=MAX_LENGTH)] = Field(
        description="A BOLT 11 invoice (also `lightning:…`, BIP 21 with `lightning=`), `name@domain`, an LNURL, "
        "`@username`, or `wallet:<id>`."
    )
    amount_msat: AmountMsat | None = Field(default=None, description="Required where the destination names none.")
    max_fee_msat: Annotated[int, Field(ge=0, le=MAX_AMOUNT_MSAT)] | None = Field(
        default=None,
        description="Most to pay beside the amount, for routing and as our fee. By default routing may take 1 %, and "
        "at least 5,000 msat, and our fee comes on top.",
    )
    memo: Memo | None = None
    external_id: ExternalId | None = None


class FailureOut(BaseModel):
    """Why the network did not take it; nothing was paid."""

    code: str = Field(
        description="no_route, insufficient_liquidity, fee_limit_exceeded, payment_timeout, incorrect_payment_details, "
        "invoice_expired, cancelled or lost_attempt"
    )
    detail: str


class WaitingOut(BaseModel):
    """What a pending payment waits for, as a worker last saw it. Its money stays held meanwhile."""

    reason: str = Field(
        description="opening, sending, in_flight, lost_attempt, overdue, node_unavailable, outcome_unknown, "
        "node_refuses, node_replaced, node_forgot, or another word for people"
    )
    detail: str
    since: datetime
    needs_operator: bool = Field(default=False, description="Whether it will not go on by itself.")


class PaymentOut(BaseModel):
    """A payment. `settled` and `failed` never change again."""

    id: str
    wallet_id: str
    kind: Literal["internal", "lightning"]
    status: Literal["pending", "settled", "failed"]
    destination: str
    amount_msat: int
    fee_msat: int = Field(description="What was paid beside the amount: for routing, and our fee.")
    max_fee_msat: int = Field(description="The most that may be paid beside the amount.")
    payment_hash: str | None
    preimage: str | None = Field(description="Proof of a Lightning payment.")
    memo: str | None
    external_id: str | None
    failure: FailureOut | None
    waiting: WaitingOut | None = Field(description="While it is pending.")
    created_at: datetime
    settled_at: datetime | None
    workflow_id: str = Field(description="Where operators see it.")


@dataclass(frozen=True, slots=True)
class Answer:
    """What Postgres knows of a key: a refusal, or a payment."""

    body_hash: bytes
    refusal: object
    payment: PaymentOut | None

    @property
    def is_final(self) -> bool:
        """Whether this will be the answer for ever."""
        return self.payment is None or self.payment.status != "pending"


@router.post(
    "/v1/payments",
    status_code=201,
    summary="Pay",
    responses={
        202: {
            "model": PaymentOut,
            "description": "Not final yet: look again at `Location` after `Retry-After`, or repeat with the same key.",
        },
        **problems(
            *("forbidden", "not_found", "invalid_request", "idempotency_key_required", "idempotency_conflict"),
            *("request_too_large", "invalid_destination", "wrong_network", "use_withdrawals", "invoice_expired"),
            *("amount_required", "amount_mismatch", "amount_too_small", "self_payment", "insufficient_funds"),
            *("limit_exceeded", "fee_limit_exceeded", "spend_limit_exceeded", "payee_closed", "price_unavailable"),
            "destination_unavailable",
            *("account_locked", "invoice_already_paid", "invoice_cancelled", "payment_in_progress", "node_unavailable"),
            *("too_many_in_flight", "invoice_unpayable"),
        ),
    },
    openapi_extra=documented(
        NewPaymentIn,
        to_a_user={"wallet_id": "wal_…", "destination": "@bob", "amount_msat": 12_500_000, "memo": "lunch"},
        an_invoice={"wallet_id": "wal_…", "destination": "lnbcrt…", "max_fee_msat": 10_000},
        an_address={"wallet_id": "wal_…", "destination": "carol@example.com", "amount_msat": 21_000},
    ),
)
async def pay(
    request: Request,
    response: Response,
    caller: Send,
    key: Annotated[str, Depends(required_key)],
    deadline: Annotated[Deadline, Depends(waiting)],
    body: Annotated[Body[NewPaymentIn], Depends(JsonBody(NewPaymentIn))],
    services: Svc,
) -> PaymentOut:
    """Scope: `send`. 201 when final (settled, or failed with `failure`), 202 while it is on its way.

    Paying a user or an invoice of this bank is settled at once and costs our fee alone, if there is one.
    """
    account = caller.account_id
    async with services.reading() as conn:
        payer = await find_payer(conn, account, WalletId(body.content.wallet_id), ApiKeyId(caller.key_id))
    if payer is None:
        raise no_such("wallet")
    known = await _find_answer(services, account, key)
    if known is not None:
        check_same(known.body_hash, body.hash)
    if known is not None or await is_under_way(services, account, key, body.content.destination):
        mark_replayed(request, response)
        if known is not None and known.is_final:
            return _reply(response, known)
        run = payment_run.find(services.temporal, payment_workflow_id(account, key))
    else:
        run = await _start(services, caller, payer, key, body)
        if not run.started_here:
            mark_replayed(request, response)
    return await _follow(services, response, run, account, key, body.hash, deadline)


@router.get("/v1/payments/{payment_id}", summary="Show a payment", responses=problems("forbidden", "not_found"))
async def show_payment(caller: Read, services: Svc, payment_id: PathId) -> PaymentOut:
    """Scope: `read`. Also a payment that was accepted (202) and has not been booked yet."""
    account = caller.account_id
    if not payment_run.PAYMENT_ID.fullmatch(payment_id):
        raise no_such("payment")
    async with services.reading() as conn:
        row = await conn.fetchrow(
            f"SELECT p.account_id, {_COLUMNS} FROM {_FROM} WHERE p.id = $1",  # noqa: S608 - constant
            payment_id,
        )
    if row is not None:
        known = dict(row)
        if known.pop("account_id") != account:
            raise no_such("payment")
        return _shown(known)
    return await _find_unopened(services, account, payment_id)


@router.get("/v1/payments", summary="List your payments", responses=problems("forbidden", "invalid_request"))
async def list_payments(caller: Read, services: Svc, paging: Annotated[Paging, Query()]) -> Page[PaymentOut]:
    """Scope: `read`. Newest first."""
    name = f"payments {caller.account_id}"
    at, row_id = position(paging, name)
    async with services.reading() as conn:
        rows = await conn.fetch(
            f"""SELECT {_COLUMNS} FROM {_FROM}
                 WHERE p.account_id = $1
                   AND (p.created_at, p.id) < (coalesce($2::timestamptz, 'infinity'), coalesce($3, ''))
                 ORDER BY p.created_at DESC, p.id DESC LIMIT $4""",  # noqa: S608 - constant
            caller.account_id,
            at,
            row_id,
            paging.limit + 1,
        )
    page, cursor = paged(rows, paging, name)
    return Page(items=[_shown(dict(row)) for row in page], next_cursor=cursor)


# Checking


async def _check(
    services: Services, caller: Caller, payer: Payer, key: str, body: Body[NewPaymentIn]
) -> tuple[PaymentRequest, str, bool]:
    """The request with every default made explicit, the payee for people to read, and whether that is one of ours."""
    asked, account = body.content, caller.account_id
    given = None if asked.amount_msat is None else Msat(asked.amount_msat)
    resolved = await with_invoice(services, await resolve(services, asked.destination), given, asked.memo)
    if resolved.wallet_id == asked.wallet_id:
        raise Invalid("The destination is the wallet that would pay it.", code="self_payment")
    amount_msat = amount_to_pay(resolved, given, datetime.now(UTC))
    if not resolved.is_ours:
        await _require_live_node(services)
    await require_prices(services, payer, "internal" if resolved.is_ours else "lightning")
    invoice = resolved.invoice
    request = PaymentRequest(
        payment_id=PaymentId(id_for_key("pay", account, key)),
        account_id=account,
        wallet_id=WalletId(asked.wallet_id),
        idempotency_key=key,
        body_hash=body.hash.hex(),
        destination=resolved.text,
        payee_wallet_id=resolved.wallet_id if invoice is None else None,
        bolt11=invoice.bolt11 if invoice else None,
        payment_hash=invoice.payment_hash if invoice else None,
        amount_in_invoice=invoice is not None and invoice.amount_msat is not None,
        amount_msat=amount_msat,
        max_fee_msat=_max_fee(resolved, asked, amount_msat),
        memo=asked.memo,
        external_id=asked.external_id,
        fee_cap_msat=None if asked.max_fee_msat is None else Msat(asked.max_fee_msat),
        api_key_id=ApiKeyId(caller.key_id),
    )
    return request, f"{invoice.payee[:6]}…" if invoice else resolved.text, resolved.is_ours


def _max_fee(resolved: Resolved, asked: NewPaymentIn, amount_msat: Msat) -> Msat:
    if resolved.is_ours:
        return Msat(0)
    if asked.max_fee_msat is not None:
        return Msat(asked.max_fee_msat)
    return default_routing_cap(amount_msat)


async def _require_live_node(services: Services) -> None:
    async with services.reading() as conn:
        alive = await conn.fetchval(
            "SELECT true FROM bank.nodes WHERE reported_at > clock_timestamp() - make_interval(secs => $1) LIMIT 1",
            _NODE_SILENCE_S,
        )
    if not alive:
        raise Unavailable(f"no node has reported in the last {_NODE_SILENCE_S} s", code="node_unavailable")


# Waiting and answering


async def _start(
    services: Services, caller: Caller, payer: Payer, key: str, body: Body[NewPaymentIn]
) -> payment_run.Run:
    """Check the request and start it: clearly internal ones in company, if there is any."""
    asked, payee, is_ours = await _check(services, caller, payer, key, body)
    if is_ours:
        return await services.lanes.start(asked, payee=payee)
    return await payment_run.start(services.temporal, asked, payee=payee)


async def _follow(
    services: Services,
    response: Response,
    run: payment_run.Run,
    account: AccountId,
    key: str,
    body_hash: bytes,
    deadline: Deadline,
) -> PaymentOut:
    """Wait for the end, through Temporal or, where that cannot tell, through Postgres; then answer from Postgres."""
    outcome = await payment_run.wait_for_end(run, deadline)
    known = await _find_answer(services, account, key)
    while outcome is None and (known is None or not known.is_final) and deadline.left_s > 0:
        await asyncio.sleep(min(_POLL_S, deadline.left_s))
        known = await _find_answer(services, account, key)
    if known is not None:
        check_same(known.body_hash, body_hash)
        return _reply(response, known)
    if outcome is not None:
        check_same(bytes.fromhex(outcome.body_hash), body_hash)
        if outcome.refusal is not None:
            raise refused(outcome.refusal.code, outcome.refusal.detail, outcome.refusal.fields)
    return await _reply_unopened(services, response, run, account, key, body_hash)


async def _reply_unopened(
    services: Services,
    response: Response,
    run: payment_run.Run,
    account: AccountId,
    key: str,
    body_hash: bytes,
) -> PaymentOut:
    """The payment has been accepted and no worker has opened it yet."""
    started = run.boarded
    if started is not None:
        async with services.reading() as conn:
            await note_boarded(conn, started.request.payment_id, run.workflow_id)
    else:
        started = await payment_run.find_started(services.temporal, run.workflow_id)
    if started is not None:
        check_same(bytes.fromhex(started.request.body_hash), body_hash)
        return _accepted(response, await _unopened(services, started, run.workflow_id))
    known = await _find_answer(services, account, key)
    if known is None:
        raise InvariantBroken(f"{run.workflow_id} has ended and left no answer")
    check_same(known.body_hash, body_hash)
    return _reply(response, known)


def _reply(response: Response, known: Answer) -> PaymentOut:
    if known.refusal is not None:
        raise as_error(known.refusal)
    if known.payment is None:
        raise InvariantBroken("an idempotency key names a payment that is not there")
    return known.payment if known.is_final else _accepted(response, known.payment)


def _accepted(response: Response, payment: PaymentOut) -> PaymentOut:
    response.status_code = 202
    response.headers["Location"] = f"/v1/payments/{payment.id}"
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return payment


async def _find_answer(services: Services, account: AccountId, key: str) -> Answer | None:
    async with services.reading() as conn:
        row = await conn.fetchrow(
            f"""SELECT k.body_hash, k.refusal, {_COLUMNS}
                  FROM bank.idempotency_keys k LEFT JOIN ({_FROM}) ON p.id = k.resource_id
                 WHERE k.account_id = $1 AND k.key = $2""",  # noqa: S608 - constant
            account,
            key,
        )
    if row is None:
        return None
    known = dict(row)
    body_hash, refusal = known.pop("body_hash"), known.pop("refusal")
    return Answer(body_hash, refusal, _shown(known) if known["id"] is not None else None)


async def _find_unopened(services: Services, account: AccountId, payment_id: str) -> PaymentOut:
    workflow_id = payment_run.workflow_id_of(account, payment_id)
    started = await payment_run.find_started(services.temporal, workflow_id)
    if started is None:
        async with services.reading() as conn:
            lane = await find_boarded(conn, PaymentId(payment_id))
        if lane is not None:
            workflow_id, started = lane, await payment_run.find_boarded(services.temporal, lane, payment_id)
    if started is None or (started.request.payment_id, started.request.account_id) != (payment_id, account):
        raise no_such("payment")
    return await _unopened(services, started, workflow_id)


async def _unopened(services: Services, started: payment_run.Started, workflow_id: str) -> PaymentOut:
    asked = started.request
    async with services.reading() as conn:
        ours = asked.payee_wallet_id is not None or await conn.fetchval(
            "SELECT true FROM bank.invoices WHERE payment_hash = $1", asked.payment_hash
        )
    return PaymentOut(
        id=asked.payment_id,
        wallet_id=asked.wallet_id,
        kind="internal" if ours else "lightning",
        status="pending",
        destination=asked.destination,
        amount_msat=asked.amount_msat,
        fee_msat=0,
        max_fee_msat=asked.max_fee_msat,
        payment_hash=asked.payment_hash,
        preimage=None,
        memo=asked.memo,
        external_id=asked.external_id,
        failure=None,
        waiting=WaitingOut(reason="opening", detail="no worker has taken it up yet", since=started.at),
        created_at=started.at,
        settled_at=None,
        workflow_id=workflow_id,
    )


def _shown(row: dict[str, Any]) -> PaymentOut:
    code, detail = row.pop("failure_code"), row.pop("failure_detail")
    reason, words, needs_operator, since = (
        row.pop(name) for name in ("reason", "wait_detail", "needs_operator", "since")
    )
    waiting = None
    if row["status"] == "pending":
        waiting = WaitingOut(
            reason=reason or "sending",
            detail=words or "the node is being asked to pay",
            since=since or row["created_at"],
            needs_operator=bool(needs_operator),
        )
    return PaymentOut(**row, failure=FailureOut(code=code, detail=detail or "") if code else None, waiting=waiting)
