"""Payments: money out of a wallet. The request is checked here; everything that moves money is in its workflow.

    known key    → the answer that it has, waited for if it is still open
    new          → destination and amount checked → workflow started, or the running one found → waited for

The workflow's id is made from account and key, and so is the payment's: a repeat finds the same one, whichever process
it meets and whatever died in between. What came of it is read from Postgres, which outlives Temporal's memory. Waiting
changes nothing: a caller that leaves, or an answer that comes too late, leaves the payment on its way.
"""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from api.access import PathId, asked_by_hand, caller_of, get_resources, needs, waiting
from api.http import idempotency_key, prefer
from api.http.body import AmountMsat, Body, Content, ExternalId, Id, JsonBody, Memo, Text, documented
from api.http.errors import problems
from api.http.idempotency_key import mark_replayed, required_key
from api.http.paging import Page, Paging, page_of, position
from api.service import payment_run
from api.service.auth import Caller, no_such
from api.service.destination import Ours, Resolved, amount_to_pay, at_hand, at_home, is_under_way, resolve, with_invoice
from api.service.idempotency import check_same, replaying
from api.service.payment_answer import COLUMNS, FROM, PaymentOut, find_answer, find_unopened, follow, reply, shown
from api.service.payment_facts import Asked, find_facts
from api.service.resources import Resources
from api.user.limits import require_max_fee, require_prices
from engine.bank.limits import Payer
from engine.contracts import workflow_ids
from engine.contracts.payment import PaymentRequest
from engine.domain.destinations import MAX_LENGTH, Destination, read_destination
from engine.domain.errors import Invalid, Unavailable
from engine.domain.ids import ApiKeyId, PaymentId, WalletId, id_for_key
from engine.domain.money import MAX_AMOUNT_MSAT, Msat
from engine.domain.routing_cap import default_routing_cap
from engine.views.page import Listing

router = APIRouter(tags=["payments"])
Read = Annotated[Caller, Depends(needs("read"))]
Res = Annotated[Resources, Depends(get_resources)]
_PAYMENTS = Listing(columns=COLUMNS, source=FROM, condition="p.account_id = $1", time="p.created_at", key="p.id")


class NewPaymentIn(Content):
    """Whom to pay, and from which wallet."""

    wallet_id: Id
    destination: Annotated[Text, Field(min_length=1, max_length=MAX_LENGTH)] = Field(
        description="A BOLT 11 invoice (also `lightning:…`, BIP 21 with `lightning=`), `name@domain`, an LNURL, "
        "`@username`, `wallet:<id>`, or, where the bank allows it, a node's public key (keysend)."
    )
    amount_msat: AmountMsat | None = Field(default=None, description="Required where the destination names none.")
    max_fee_msat: Annotated[int, Field(ge=0, le=MAX_AMOUNT_MSAT)] | None = Field(
        default=None,
        description="Most to pay beside the amount, for routing and as our fee. By default routing may take 1 %, and "
        "at least 5,000 msat, and our fee comes on top. `max_fee_factor` of `GET /v1/limits` bounds it.",
    )
    memo: Memo | None = None
    external_id: ExternalId | None = None


_BODY = JsonBody(NewPaymentIn)


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
            *("too_many_in_flight", "invoice_unpayable", "keysend_disabled", "max_fee_too_high"),
            "invoice_refused_by_node",
        ),
    },
    openapi_extra=documented(
        NewPaymentIn,
        to_a_user={"wallet_id": "wal_…", "destination": "@bob", "amount_msat": 12_500_000, "memo": "lunch"},
        an_invoice={"wallet_id": "wal_…", "destination": "lnbcrt…", "max_fee_msat": 10_000},
        an_address={"wallet_id": "wal_…", "destination": "carol@example.com", "amount_msat": 21_000},
    )
    | asked_by_hand(Idempotency_Key=idempotency_key.MEANING, Prefer=prefer.MEANING),
)
async def pay(request: Request, response: Response) -> PaymentOut:
    """Scope: `send`. 201 when final (settled, or failed with `failure`), 202 while it is on its way.

    Paying a user or an invoice of this bank is settled at once and costs our fee alone, if there is one.
    """
    resources, caller = await get_resources(request), await caller_of(request)
    caller.require("send")
    key, deadline = await required_key(request), await waiting(request)
    body = await _BODY(request)
    account = caller.account_id
    asked = Asked(
        payment_id=PaymentId(id_for_key("pay", account, key)),
        account_id=account,
        wallet_id=WalletId(body.content.wallet_id),
        api_key_id=ApiKeyId(caller.key_id),
        key=key,
        destination=_named(resources, body.content.destination),
    )
    facts = await resources.lookups.ask(find_facts, asked)
    if facts.payer is None:
        raise no_such("wallet")
    if facts.standing is not None:
        check_same(facts.standing.body_hash, body.hash)
    is_replay = facts.standing is not None or await is_under_way(resources, account, key, body.content.destination)
    with replaying(is_replay=is_replay):
        if is_replay:
            mark_replayed(response)
            known = await find_answer(resources, account, key)
            if known is not None and known.is_final:
                return reply(response, known)
            run = payment_run.find(resources.temporal, workflow_ids.payment(account, key))
        else:
            run = await _start(resources, asked, facts.payer, facts.ours, body)
    if not run.started_here:
        mark_replayed(response)
    with replaying(is_replay=is_replay or not run.started_here):
        return await follow(resources, response, run, asked, body.hash, deadline)


@router.get("/v1/payments/{payment_id}", summary="Show a payment", responses=problems("forbidden", "not_found"))
async def show_payment(caller: Read, resources: Res, payment_id: PathId) -> PaymentOut:
    """Scope: `read`. Also a payment that was accepted (202) and has not been booked yet."""
    account = caller.account_id
    if not payment_run.PAYMENT_ID.fullmatch(payment_id):
        raise no_such("payment")
    async with resources.reading() as conn:
        row = await conn.fetchrow(
            f"SELECT p.account_id, {COLUMNS} FROM {FROM} WHERE p.id = $1",  # noqa: S608 - constant
            payment_id,
        )
    if row is not None:
        known = dict(row)
        if known.pop("account_id") != account:
            raise no_such("payment")
        return shown(known)
    return await find_unopened(resources, account, payment_id)


@router.get("/v1/payments", summary="List your payments", responses=problems("forbidden", "invalid_request"))
async def list_payments(caller: Read, resources: Res, paging: Annotated[Paging, Query()]) -> Page[PaymentOut]:
    """Scope: `read`. Newest first."""
    name = f"payments {caller.account_id}"
    async with resources.reading() as conn:
        found = await _PAYMENTS.read(conn, position(paging, name), paging.limit, caller.account_id)
    return page_of(found.map(shown), name)


# Checking


def _named(resources: Resources, text: str) -> Destination | None:
    try:
        return at_home(resources.settings, read_destination(text))
    except Invalid:
        return None


async def _check(
    resources: Resources, asked: Asked, payer: Payer, ours: Ours, content: NewPaymentIn
) -> tuple[Resolved, Msat]:
    """What the destination means, with its invoice if it has one, and how much to pay."""
    given = None if content.amount_msat is None else Msat(content.amount_msat)
    resolved = at_hand(content.destination, asked.destination, ours)
    if resolved is None:
        resolved = await with_invoice(resources, await resolve(resources, content.destination), given, content.memo)
    if resolved.wallet_id == asked.wallet_id:
        raise Invalid("The destination is the wallet that would pay it.", code="self_payment")
    amount_msat = amount_to_pay(resolved, given, datetime.now(UTC))
    if not resolved.is_ours:
        if content.max_fee_msat is not None:
            await require_max_fee(resources, payer, amount_msat, Msat(content.max_fee_msat))
        await _require_live_node(resources)
    await require_prices(resources, payer, "internal" if resolved.is_ours else "lightning")
    return resolved, amount_msat


def _complete(asked: Asked, resolved: Resolved, amount_msat: Msat, body: Body[NewPaymentIn]) -> PaymentRequest:
    """The request with every default made explicit."""
    content, invoice = body.content, resolved.request
    return PaymentRequest(
        payment_id=asked.payment_id,
        account_id=asked.account_id,
        wallet_id=asked.wallet_id,
        idempotency_key=asked.key,
        body_hash=body.hash.hex(),
        destination=resolved.text,
        payee_wallet_id=resolved.wallet_id if invoice is None else None,
        bolt11=invoice.bolt11 if invoice else None,
        payee_node=resolved.payee_node,
        success_action=resolved.success_action,
        payment_hash=invoice.payment_hash if invoice else None,
        amount_in_invoice=invoice is not None and invoice.amount_msat is not None,
        amount_msat=amount_msat,
        max_fee_msat=_max_fee(resolved, content, amount_msat),
        memo=content.memo,
        external_id=content.external_id,
        fee_cap_msat=None if content.max_fee_msat is None else Msat(content.max_fee_msat),
        api_key_id=asked.api_key_id,
    )


def _max_fee(resolved: Resolved, asked: NewPaymentIn, amount_msat: Msat) -> Msat:
    if resolved.is_ours:
        return Msat(0)
    if asked.max_fee_msat is not None:
        return Msat(asked.max_fee_msat)
    return default_routing_cap(amount_msat)


async def _require_live_node(resources: Resources) -> None:
    async with resources.reading() as conn:
        alive = await conn.fetchval("SELECT true FROM bank.nodes WHERE bank.has_reported(reported_at) LIMIT 1")
    if not alive:
        raise Unavailable("no node has reported lately", code="node_unavailable")


async def _start(
    resources: Resources, asked: Asked, payer: Payer, ours: Ours, body: Body[NewPaymentIn]
) -> payment_run.Run:
    """Check the request and start it: clearly internal ones in company, if there is any."""
    resolved, amount_msat = await _check(resources, asked, payer, ours, body.content)
    request = _complete(asked, resolved, amount_msat, body)
    if resolved.is_ours:
        payee = f"wallet:{resolved.wallet_id}" if resolved.request else resolved.text
        return await resources.lanes.start(request, payee=payee)
    node = resolved.invoice.payee if resolved.invoice else resolved.payee_node
    payee = f"{node[:6]}…" if node else resolved.text
    return await resources.lightning_lanes.start(request, payee=payee)
