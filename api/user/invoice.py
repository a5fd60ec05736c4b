"""Invoices: asking to be paid. No money moves, so no workflow runs: a row here, and one repeatable call to a node.

    make    key looked up → AddInvoice on a node that is alive and can receive it → row and key in one transaction
    cancel  CancelInvoice on its node → row, unless somebody has paid meanwhile

The preimage is an HMAC of the invoice's id and the request, and the id comes from account and key. A repeat after a
crash between the two steps therefore finds the node's invoice again, and an invoice that never got its row was never
shown to anybody. A row that is `open` past its expiry is shown as `expired`; the sweep writes that down later.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from api.access import PathId, asked_by_hand, caller_of, get_resources, needs
from api.http import idempotency_key
from api.http.body import AmountMsat, Content, ExternalId, Id, JsonBody, Memo, documented, empty_hash
from api.http.errors import problems
from api.http.idempotency_key import mark_replayed, optional_key
from api.http.paging import Listing, Page, Paging
from api.service.auth import Caller, no_such
from api.service.idempotency import Intent, find_replay, once, once_written, replay
from api.service.invoice_row import (
    COLUMNS,
    UNKNOWN,
    Facts,
    InvoiceOut,
    NewInvoice,
    Receiver,
    closed,
    find_facts,
    insert_in_tx,
    shown,
)
from api.service.resources import Resources
from engine.clients import bolt11
from engine.clients.lnd.invoices import InvoiceNode
from engine.domain.errors import InvariantBroken, OutcomeUnknown, Refused, Unavailable
from engine.domain.ids import AccountId, InvoiceId, NodeName, PaymentHash, WalletId, id_for_key, new_id
from engine.domain.money import Msat
from engine.ledger.database import Connection, change_any, translated

router = APIRouter(tags=["invoices"])
Receive = Annotated[Caller, Depends(needs("receive"))]
Read = Annotated[Caller, Depends(needs("read"))]
Key = Annotated[str | None, Depends(optional_key)]
Res = Annotated[Resources, Depends(get_resources)]
_INVOICES = Listing(columns=COLUMNS, source="bank.invoices", condition="account_id = $1")

MIN_EXPIRY_S, DEFAULT_EXPIRY_S, MAX_EXPIRY_S = 1, 3600, 7 * 86_400
_PUBLIC = hashlib.sha256(b"public").digest()
"""Stands for the request where there is none to tell apart: an invoice that somebody without a key asked for."""


class NewInvoiceIn(Content):
    """What to ask for. Without an amount the payer chooses."""

    wallet_id: Id
    amount_msat: AmountMsat | None = None
    memo: Memo | None = Field(default=None, description="Shown to the payer, unless description_hash is given.")
    description_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="SHA-256 of a description that the payer gets elsewhere; put in the invoice instead."
    )
    expiry_s: Annotated[int, Field(ge=MIN_EXPIRY_S, le=MAX_EXPIRY_S)] = Field(
        default=DEFAULT_EXPIRY_S, description="From one second to seven days."
    )
    external_id: ExternalId | None = None


_BODY = JsonBody(NewInvoiceIn)


@router.post(
    "/v1/invoices",
    status_code=201,
    summary="Make an invoice",
    responses=problems(
        "forbidden",
        "not_found",
        "invalid_request",
        "idempotency_conflict",
        "external_id_taken",
        "account_locked",
        "node_unavailable",
    ),
    openapi_extra=documented(
        NewInvoiceIn, coffee={"wallet_id": "wal_…", "amount_msat": 250_000, "memo": "1 cup of coffee"}
    )
    | asked_by_hand(Idempotency_Key=idempotency_key.MEANING),
)
async def make_invoice(request: Request, response: Response) -> InvoiceOut:
    """Scope: `receive`. An invoice of this bank paid by one of its users settles at once, without the network.

    `receivable_msat` says how much can come in from outside now; `warning` that this amount could not.
    """
    resources, caller = await get_resources(request), await caller_of(request)
    caller.require("receive")
    key, body = await optional_key(request), await _BODY(request)
    asked, account = body.content, caller.account_id
    facts = await _facts(resources, account, asked.wallet_id, key)
    intent = Intent(owner=account, key=key, body_hash=body.hash)
    if facts.known is not None:
        made = replay(facts.known, intent)
        mark_replayed(response)
        return await _read(resources, account, made)
    if facts.status == "closed":  # a locked account still receives
        raise closed()
    invoice_id = InvoiceId(id_for_key("inv", account, key) if key else new_id("inv"))
    new = await _make_at_a_node(resources, facts, account, invoice_id, asked, body.hash)
    claim = intent.claim(invoice_id)
    written: list[InvoiceOut] = []

    async def write() -> bool:
        row = await resources.lookups.write(insert_in_tx, replace(new, claim=claim))
        written.extend([] if row is None else [row])
        return row is not None

    outcome = await once_written(resources, intent, invoice_id, write)
    if outcome.replayed:
        mark_replayed(response)
    return written[0] if written else await _read(resources, account, outcome.id)


@router.get("/v1/invoices/{invoice_id}", summary="Show an invoice", responses=problems("forbidden", "not_found"))
async def show_invoice(caller: Read, resources: Res, invoice_id: PathId) -> InvoiceOut:
    """Scope: `read`."""
    return await _read(resources, caller.account_id, invoice_id)


@router.get("/v1/invoices", summary="List your invoices", responses=problems("forbidden", "invalid_request"))
async def list_invoices(caller: Read, resources: Res, paging: Annotated[Paging, Query()]) -> Page[InvoiceOut]:
    """Scope: `read`. Newest first."""
    name = f"invoices {caller.account_id}"
    async with resources.reading() as conn:
        rows, following = await _INVOICES.read(conn, paging, name, caller.account_id)
    return Page(items=[shown(row) for row in rows], next_cursor=following)


@router.post(
    "/v1/invoices/{invoice_id}/cancel",
    summary="Cancel an invoice",
    responses=problems("forbidden", "not_found", "invoice_already_paid", "node_unavailable", "idempotency_conflict"),
)
async def cancel_invoice(
    request: Request, response: Response, caller: Receive, key: Key, resources: Res, invoice_id: PathId
) -> InvoiceOut:
    """Scope: `receive`. A cancelled or expired invoice stays what it is; a paid one cannot be cancelled."""
    account = caller.account_id
    invoice = await _read(resources, account, invoice_id)
    intent = Intent(owner=account, key=key, body_hash=empty_hash(request))
    is_replay = await find_replay(resources, intent) is not None
    if not is_replay:
        if invoice.status == "open" and not await _cancel_at_its_node(resources, invoice):
            raise _paid()

        async def make(conn: Connection) -> None:
            await _cancel_in_tx(conn, invoice_id)

        is_replay = (await once(resources, intent, invoice_id, make)).replayed
    if is_replay:
        mark_replayed(response)
    return await _read(resources, account, invoice_id)


# For the public: lightning addresses and tip pages


async def make_for_public(resources: Resources, account_id: AccountId, asked: NewInvoiceIn) -> InvoiceOut:
    """An invoice that somebody without a key asks for; each call makes another. Raises Refused, Unavailable."""
    facts = await _facts(resources, account_id, asked.wallet_id, None)
    if facts.status == "closed":
        raise closed()
    new = await _make_at_a_node(resources, facts, account_id, InvoiceId(new_id("inv")), asked, _PUBLIC)
    row = await resources.lookups.write(insert_in_tx, new)
    if row is None:
        raise InvariantBroken("an invoice without a key was taken for a repeat")
    return row


async def find_for_public(
    resources: Resources, account_id: AccountId, payment_hash: str
) -> tuple[InvoiceOut, str | None] | None:
    """An invoice that was made for the public, and its preimage once that has been shown to the network.

    None also for the account's other invoices: they concern nobody who does not have a key. One that was paid within
    the bank has shown its preimage to nobody, and keeps it: a node on the way of a late payment could else take that.
    """
    with translated():
        row = await resources.pool.fetchrow(
            f"SELECT {COLUMNS}, outside_msat FROM bank.invoices WHERE payment_hash = $1 AND account_id = $2",  # noqa: S608 - constant
            payment_hash,
            account_id,
        )
    if row is None:
        return None
    known = dict(row)
    is_shown = known.pop("outside_msat") > 0
    preimage = _preimage(resources, InvoiceId(known["id"]), _PUBLIC)
    if hashlib.sha256(preimage).hexdigest() != payment_hash:
        return None
    return shown(known), preimage.hex() if is_shown else None


# Making


async def _facts(resources: Resources, account_id: AccountId, wallet_id: str, key: str | None) -> Facts:
    """Raises NotFound for a wallet of somebody else."""
    facts = await resources.lookups.ask(find_facts, (account_id, WalletId(wallet_id), key))
    if facts.status is None:
        raise no_such("wallet")
    return facts


def _preimage(resources: Resources, invoice_id: InvoiceId, body_hash: bytes) -> bytes:
    secret = bytes.fromhex(resources.settings.preimage_secret.get_secret_value())
    return hmac.digest(secret, invoice_id.encode() + body_hash, "sha256")


async def _make_at_a_node(
    resources: Resources, facts: Facts, account_id: AccountId, invoice_id: InvoiceId, asked: NewInvoiceIn, of: bytes
) -> NewInvoice:
    """Ask one node after the other until one can receive it. Raises Unavailable when none could make it.

    When none could receive it, it is the first one's. A node whose answer got lost, or whose invoice names no way that
    suffices, may keep an invoice that nobody is ever shown; it expires there. `of` is the hash of the request.
    """
    preimage, made = _preimage(resources, invoice_id, of), None
    amount_msat = None if asked.amount_msat is None else Msat(asked.amount_msat)
    for node in _in_order(resources.invoices.values(), facts.nodes, amount_msat, invoice_id):
        receiver = facts.nodes.get(node.name, UNKNOWN)
        try:
            text = await node.add_invoice(
                preimage=preimage,
                amount_msat=amount_msat,
                memo=asked.memo,
                description_hash=bytes.fromhex(asked.description_hash) if asked.description_hash else None,
                expiry_s=asked.expiry_s,
                hints=receiver.needs_hints(amount_msat),
            )
        except (Unavailable, OutcomeUnknown):
            continue
        invoice = _checked(text, resources, preimage, asked)
        if _suffices(receiver.receivable_msat(hinted=bool(invoice.route_hints)), amount_msat):
            made = node.name, invoice
            break
        made = made or (node.name, invoice)
        if not _suffices(receiver.inbound_msat, amount_msat):  # nor can one that follows
            break
    if made is None:
        raise Unavailable("no node could make the invoice", code="node_unavailable")
    return NewInvoice(
        id=invoice_id,
        account_id=account_id,
        wallet_id=WalletId(asked.wallet_id),
        node=made[0],
        made=made[1],
        amount_msat=amount_msat,
        memo=asked.memo,
        description_hash=asked.description_hash,
        external_id=asked.external_id,
    )


def _in_order(
    nodes: Iterable[InvoiceNode],
    receivers: Mapping[NodeName, Receiver],
    amount_msat: Msat | None,
    invoice_id: InvoiceId,
) -> list[InvoiceNode]:
    """Those first that have reported lately, and of these those that can receive it; then who can receive most.

    Among equals the order is the invoice's own, so that invoices spread over the nodes.
    """

    def place(node: InvoiceNode) -> tuple[bool, bool, int, bytes]:
        receiver = receivers.get(node.name, UNKNOWN)
        suffices = _suffices(receiver.inbound_msat, amount_msat)
        spread = suffices and amount_msat is not None
        turn = hashlib.sha256(f"{invoice_id}{node.name}".encode()).digest()
        return not receiver.fresh, not suffices, 0 if spread else -(receiver.inbound_msat or 0), turn

    return sorted(nodes, key=place)


def _suffices(receivable_msat: Msat | None, amount_msat: Msat | None) -> bool:
    """Whether it can come in, as far as we know."""
    return receivable_msat is None or receivable_msat >= (amount_msat or 1)


def _checked(text: str, resources: Resources, preimage: bytes, asked: NewInvoiceIn) -> bolt11.Bolt11:
    """Read back what the node made: it must ask for what we were asked for, for our hash."""
    invoice = bolt11.decode(text, network=resources.settings.bitcoin_network)
    if invoice.payment_hash != hashlib.sha256(preimage).hexdigest() or invoice.amount_msat != asked.amount_msat:
        raise InvariantBroken("the node made another invoice than it was asked for")
    return invoice


# Cancelling


async def _cancel_at_its_node(resources: Resources, invoice: InvoiceOut) -> bool:
    """False when somebody has paid it."""
    async with resources.reading() as conn:
        name = await conn.fetchval("SELECT node FROM bank.invoices WHERE id = $1", invoice.id)
    node = resources.invoices.get(name)
    if node is None:
        raise Unavailable(f"{name} is no node of ours now", code="node_unavailable")
    try:
        return await node.cancel_invoice(PaymentHash(invoice.payment_hash))
    except (OutcomeUnknown, Unavailable) as error:
        raise Unavailable(error.detail, code="node_unavailable") from error


async def _cancel_in_tx(conn: Connection, invoice_id: str) -> None:
    """Raises Refused when a user of ours has paid it between the node's answer and now."""
    await change_any(
        conn,
        """UPDATE bank.invoices SET status = 'cancelled'
            WHERE id = $1 AND status = 'open' AND expires_at > clock_timestamp()""",
        invoice_id,
    )
    if await conn.fetchval("SELECT status FROM bank.invoices WHERE id = $1", invoice_id) == "settled":
        raise _paid()


def _paid() -> Refused:
    return Refused("This invoice has been paid; it cannot be cancelled any more.", code="invoice_already_paid")


# Reading


async def _read(resources: Resources, account_id: AccountId, invoice_id: str) -> InvoiceOut:
    with translated():
        row = await resources.pool.fetchrow(
            f"SELECT {COLUMNS} FROM bank.invoices WHERE id = $1 AND account_id = $2",  # noqa: S608 - constant
            invoice_id,
            account_id,
        )
    if row is None:
        raise no_such("invoice")
    return shown(dict(row))
