"""A payment as its caller is told of it: waited for, read from Postgres, or from its workflow while no worker has it.

Postgres has the answer of every key for ever. Between the start of a workflow and its first activity only Temporal
knows of a payment, and it is shown as it was asked for. Before anybody is told that it was accepted, its request is
kept in Postgres: what becomes of its workflow then loses nothing.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel, Field, TypeAdapter

from api.http.codes import refused
from api.http.errors import RETRY_AFTER_S
from api.service import payment_run
from api.service.auth import no_such
from api.service.deadline import Deadline
from api.service.idempotency import as_error, check_same
from api.service.payment_facts import Asked
from api.service.resources import Resources
from engine.bank import accepted
from engine.clients.lnurl.success_action import reveal
from engine.contracts.payment import PaymentRequest
from engine.domain.errors import InvariantBroken, Unavailable
from engine.domain.ids import AccountId, PaymentId
from engine.ledger.database import Connection

_POLL_S = 0.15
_REQUEST = TypeAdapter(PaymentRequest)
COLUMNS = """p.id, p.wallet_id, p.kind, p.status, p.destination, p.amount_msat, p.delivered_msat, p.fee_msat,
    p.max_fee_msat, p.payment_hash, p.preimage, p.memo, p.external_id, p.failure_code, p.failure_detail, p.created_at,
    p.settled_at, p.workflow_id, p.batch_id, w.reason, w.detail AS wait_detail, w.needs_operator, w.since,
    CASE WHEN p.kind = 'lightning' AND p.status = 'settled' THEN
         (SELECT s.action FROM bank.success_actions s WHERE s.payment_id = p.id) END AS success_action"""
FROM = "bank.payments p LEFT JOIN bank.payment_waits w ON w.payment_id = p.id AND p.status = 'pending'"


class FailureOut(BaseModel):
    """Why the network did not take it; nothing was paid."""

    code: str = Field(
        description="no_route, insufficient_liquidity, fee_limit_exceeded, payment_timeout, incorrect_payment_details, "
        "invoice_expired, cancelled, invoice_refused_by_node, lost_attempt or released_by_operators"
    )
    detail: str


class WaitingOut(BaseModel):
    """What a pending payment waits for, as a worker last saw it. Its money stays held meanwhile."""

    reason: str = Field(
        description="opening, sending, in_flight, not_tried, lost_attempt, channels_in_doubt, overdue, "
        "node_unavailable, outcome_unknown, send_refused, node_refuses, node_replaced, node_forgot, or another word "
        "for people"
    )
    detail: str
    since: datetime
    needs_operator: bool = Field(default=False, description="Whether it will not go on by itself.")


class SuccessActionOut(BaseModel):
    """What an LNURL or lightning address outside shows to whoever has paid it (LUD-09, LUD-10)."""

    tag: Literal["message", "url", "aes"]
    message: str | None = Field(
        default=None, description="Of `message` the text; of `aes` the text that the payment has opened, if it could."
    )
    description: str | None = Field(default=None, description="Of `url` and `aes`: what the other one is.")
    url: str | None = Field(default=None, description="A link to the host that gave the invoice.")


class PaymentOut(BaseModel):
    """A payment. `settled` and `failed` never change again."""

    id: str
    wallet_id: str
    kind: Literal["internal", "lightning"]
    status: Literal["pending", "settled", "failed"]
    destination: str
    amount_msat: int
    delivered_msat: int | None = Field(
        default=None,
        description="What the payee took. Set only where that differs from `amount_msat`: a payee can take some parts "
        "of a payment and leave the others. The rest is back in the wallet.",
    )
    fee_msat: int = Field(description="What was paid beside the amount: for routing, and our fee.")
    max_fee_msat: int = Field(description="The most that may be paid beside the amount.")
    payment_hash: str | None
    preimage: str | None = Field(description="Proof of a Lightning payment.")
    memo: str | None
    external_id: str | None
    success_action: SuccessActionOut | None = Field(default=None, description="Once it is settled.")
    failure: FailureOut | None
    waiting: WaitingOut | None = Field(description="While it is pending.")
    created_at: datetime
    settled_at: datetime | None
    workflow_id: str = Field(description="Where operators see it.")
    batch_id: str | None = Field(default=None, description="The batch that it is one of.")


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


async def follow(
    resources: Resources,
    response: Response,
    run: payment_run.Run,
    asked: Asked,
    body_hash: bytes,
    deadline: Deadline,
) -> PaymentOut:
    """Wait for the end, through Temporal or, where that cannot tell, through Postgres; then answer from Postgres."""
    outcome = await payment_run.wait_for_end(run, deadline)
    if outcome is not None and not outcome.is_final:  # a lane has left it alone
        run = payment_run.find(resources.temporal, payment_run.workflow_id_of(asked.account_id, asked.payment_id))
        outcome = await payment_run.wait_for_end(run, deadline)
    known = await find_answer(resources, asked.account_id, asked.key)
    while outcome is None and (known is None or not known.is_final) and deadline.left_s > 0:
        await asyncio.sleep(min(_POLL_S, deadline.left_s))
        known = await find_answer(resources, asked.account_id, asked.key)
    if known is not None:
        check_same(known.body_hash, body_hash)
        return reply(response, known)
    if outcome is not None:
        check_same(bytes.fromhex(outcome.body_hash), body_hash)
        if outcome.refusal is not None:
            raise refused(outcome.refusal.code, outcome.refusal.detail, outcome.refusal.fields)
    return await _reply_unopened(resources, response, run, asked, body_hash)


async def _reply_unopened(
    resources: Resources,
    response: Response,
    run: payment_run.Run,
    asked: Asked,
    body_hash: bytes,
) -> PaymentOut:
    """The payment has been accepted and no worker has opened it yet. Its request is kept before that is said."""
    found = (run.boarded, run.workflow_id) if run.boarded else None
    found = found or await _find_started(resources, asked.account_id, asked.payment_id)
    if found is not None:
        check_same(await keep_accepted(resources, *found), body_hash)
        return _accepted(response, await _unopened(resources, *found))
    known = await find_answer(resources, asked.account_id, asked.key)
    if known is None:  # ended by hand before it was opened: the same request again begins another one
        raise Unavailable(f"{run.workflow_id} has ended and left no answer", code="temporarily_unavailable")
    check_same(known.body_hash, body_hash)
    return reply(response, known)


async def keep_accepted(resources: Resources, started: payment_run.Started, workflow_id: str) -> bytes:
    """Before a caller is told that this was accepted: from now on its workflow can be begun again from the request.

    Gives the hash of the request that its key stands for, which may be another one.
    """
    asked = started.request
    body_hash = bytes.fromhex(asked.body_hash)
    async with resources.reading() as conn:
        noted = await accepted.note_accepted(
            conn, asked.payment_id, workflow_id, started.at, body_hash, request=asdict(asked)
        )
    return noted or body_hash


def reply(response: Response, known: Answer) -> PaymentOut:
    """The answer of a key: 201 when final, 202 while it is not. Raises its refusal."""
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


async def find_answer(resources: Resources, account: AccountId, key: str) -> Answer | None:
    """What the key stands for, once a worker has opened its payment."""
    return await resources.lookups.ask(_find_answers, (account, key))


async def _find_answers(conn: Connection, asked: Sequence[tuple[AccountId, str]]) -> list[Answer | None]:
    """Of each account and key, in their order: all that shared a lane ask at the same moment."""
    rows = await conn.fetch(
        f"""SELECT k.body_hash, k.refusal, {COLUMNS}
              FROM unnest((SELECT $1::text[]), (SELECT $2::text[])) WITH ORDINALITY o(account_id, key, place)
              LEFT JOIN bank.idempotency_keys k ON k.account_id = o.account_id AND k.key = o.key
              LEFT JOIN ({FROM}) ON p.id = k.resource_id ORDER BY o.place""",  # noqa: S608 - constant
        [account_id for account_id, _key in asked],
        [key for _account_id, key in asked],
    )
    return [None if row["body_hash"] is None else _answer(dict(row)) for row in rows]


def _answer(known: dict[str, Any]) -> Answer:
    body_hash, refusal = known.pop("body_hash"), known.pop("refusal")
    return Answer(body_hash, refusal, shown(known) if known["id"] is not None else None)


async def find_unopened(resources: Resources, account: AccountId, payment_id: str) -> PaymentOut:
    """A payment that was accepted and that no worker has opened. Raises NotFound, and Unavailable without Temporal."""
    found = await _find_started(resources, account, payment_id)
    if found is None or (found[0].request.payment_id, found[0].request.account_id) != (payment_id, account):
        raise no_such("payment")
    await keep_accepted(resources, *found)
    return await _unopened(resources, *found)


async def _find_started(
    resources: Resources, account: AccountId, payment_id: str
) -> tuple[payment_run.Started, str] | None:
    """The request that was accepted and is not opened, and its workflow: as it is kept, or as Temporal has it.

    Raises Unavailable.
    """
    async with resources.reading() as conn:
        boarded = await accepted.find_accepted(conn, PaymentId(payment_id))
    if boarded is not None and boarded.request is not None:
        request = _REQUEST.validate_python(boarded.request)
        return payment_run.Started(request, boarded.created_at), boarded.workflow_id
    workflow_id = payment_run.workflow_id_of(account, payment_id)
    started = await payment_run.find_started(resources.temporal, workflow_id)
    if started is None and boarded is not None:  # noted by an older release
        workflow_id = boarded.workflow_id
        started = await payment_run.find_boarded(resources.temporal, workflow_id, payment_id, boarded.created_at)
    return None if started is None else (started, workflow_id)


async def _unopened(resources: Resources, started: payment_run.Started, workflow_id: str) -> PaymentOut:
    asked = started.request
    async with resources.reading() as conn:
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


def shown(row: dict[str, Any]) -> PaymentOut:
    """A payment of these columns."""
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
    action = row.pop("success_action")
    return PaymentOut(
        **row,
        success_action=SuccessActionOut.model_validate(reveal(action, row["preimage"])) if action else None,
        failure=FailureOut(code=code, detail=detail or "") if code else None,
        waiting=waiting,
    )
