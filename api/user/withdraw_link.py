"""Withdraw links: whoever has the link takes its amount from the wallet, as often as it says (LNURL, LUD-03).

    made       POST /v1/withdraw-links: a promise; no money is held
    shown      GET /lnurlw/<id>_<seal>: what it gives, with a `k1` for one claim
    claimed    GET /lnurlw/<id>_<seal>/callback?k1=…&pr=…: that invoice's payment is started, with a key made of k1

The use is taken where the payment's money is held, in one transaction, and comes back when the payment fails (decision
0017). So a claim that was repeated, or whose process died, is the one payment of its key; of any number at once exactly
as many are paid as there are uses. The seal makes the link a secret that stands nowhere: not in the database, and not
in a workflow's history, where the id does. `k1` carries one too, so that nothing is kept for those who only look.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from api.access import PathId, get_resources, needs
from api.http.body import AmountMsat, Body, Content, Expiry, Id, JsonBody, Memo, documented
from api.http.errors import problems
from api.http.idempotency_key import mark_replayed, optional_key
from api.http.lnurl import LnurlRoute
from api.http.paging import Page, Paging, page_of, position
from api.service import payment_run
from api.service.auth import Caller, no_such
from api.service.deadline import Deadline
from api.service.destination import resolve
from api.service.idempotency import Intent, Made, as_error, find_replay, once
from api.service.payment_answer import keep_accepted
from api.service.resources import Resources
from api.service.wallet.wallet import own_wallet
from api.user.limits import require_prices
from engine.bank.idempotency import find_key
from engine.bank.limits import find_payer
from engine.bank.withdraw_link import (
    WithdrawLink,
    add_link_in_tx,
    delete_link,
    find_link,
    why_closed,
)
from engine.clients import bolt11
from engine.contracts.payment import PaymentRequest
from engine.domain.errors import EngineError, Invalid, InvariantBroken, Refused
from engine.domain.ids import ApiKeyId, PaymentId, WalletId, WithdrawLinkId, id_for_key, new_id
from engine.domain.lnurl import write_lnurl
from engine.domain.money import Msat
from engine.domain.routing_cap import default_routing_cap
from engine.ledger.database import Connection
from engine.views.withdraw_link import list_links

router = APIRouter(tags=["withdraw links"])
public = APIRouter(tags=["lnurl"], route_class=LnurlRoute)
Send = Annotated[Caller, Depends(needs("send"))]
Key = Annotated[str | None, Depends(optional_key)]
Res = Annotated[Resources, Depends(get_resources)]

_NONCE_BYTES = _SEAL_BYTES = 16
_K1 = re.compile(r"[0-9a-f]{64}")
_OWNERS_AFFAIRS = frozenset(
    {"insufficient_funds", "account_locked", "limit_exceeded", "spend_limit_exceeded", "price_unavailable"}
)
_ACCEPT_LIMIT_S, _ACCEPT_POLL_S = 8, 0.05


class NewLinkIn(Content):
    """What to promise, and how often."""

    wallet_id: Id
    amount_msat: AmountMsat
    uses: Annotated[int, Field(ge=1, le=1000)] = 1
    expires_at: Expiry | None = Field(default=None, description="RFC 3339; none: never.")
    memo: Memo | None = Field(default=None, description="Shown to whoever opens the link, and in the payments.")


class LinkOut(BaseModel):
    """A withdraw link. Whoever knows it can take the money: `lnurl` and `url` are secrets, `id` is none.

    Claims count towards the spend limit of the key that made the link. So a key with a spend limit is shown the
    secrets of its own links only; those of other links are null.
    """

    id: str
    wallet_id: str
    amount_msat: int
    uses: int
    uses_left: int = Field(description="A claim whose payment fails gives its use back.")
    status: str = Field(
        description="open, used_up, expired, or deleted: also once the key that made it is revoked or has expired"
    )
    lnurl: str | None
    url: str | None
    memo: str | None
    expires_at: datetime | None
    created_at: datetime


@router.post(
    "/v1/withdraw-links",
    status_code=201,
    summary="Make a withdraw link",
    responses=problems("forbidden", "not_found", "invalid_request", "idempotency_conflict"),
    openapi_extra=documented(NewLinkIn, gift={"wallet_id": "wal_…", "amount_msat": 21_000_000, "memo": "a gift"}),
)
async def make_link(
    response: Response,
    caller: Send,
    key: Key,
    body: Annotated[Body[NewLinkIn], Depends(JsonBody(NewLinkIn))],
    resources: Res,
) -> LinkOut:
    """Scope: `send`. Nothing is held: each claim needs amount and routing fee in the wallet when it comes.

    The link pays no more once the key that made it is revoked or has expired.
    """
    asked, account = body.content, caller.account_id
    async with resources.reading() as conn:
        await own_wallet(conn, account, asked.wallet_id)
    intent = Intent(owner=account, key=key, body_hash=body.hash)
    known = await find_replay(resources, intent)
    made = None if known is None else Made(known, replayed=True)
    if made is None:
        if asked.expires_at is not None and asked.expires_at <= datetime.now(UTC):
            raise Invalid("expires_at lies in the past.", field="expires_at")
        link = WithdrawLink(
            id=WithdrawLinkId(new_id("wdl")),
            account_id=account,
            wallet_id=WalletId(asked.wallet_id),
            key_id=ApiKeyId(caller.key_id),
            amount_msat=Msat(asked.amount_msat),
            uses=asked.uses,
            uses_left=asked.uses,
            memo=asked.memo,
            expires_at=asked.expires_at,
            deleted_at=None,
            created_at=datetime.now(UTC),
        )

        async def make(conn: Connection) -> None:
            await add_link_in_tx(conn, link)

        made = await once(resources, intent, link.id, make)
    if made.replayed:
        mark_replayed(response)
    return _shown(resources, caller, await _own_link(resources, caller, made.id))


@router.get(
    "/v1/withdraw-links/{link_id}", summary="Show a withdraw link", responses=problems("forbidden", "not_found")
)
async def show_link(caller: Send, resources: Res, link_id: PathId) -> LinkOut:
    """Scope: `send`, because the link is as good as the money."""
    return _shown(resources, caller, await _own_link(resources, caller, link_id))


@router.get(
    "/v1/withdraw-links", summary="List your withdraw links", responses=problems("forbidden", "invalid_request")
)
async def list_own_links(caller: Send, resources: Res, paging: Annotated[Paging, Query()]) -> Page[LinkOut]:
    """Scope: `send`. Newest first."""
    name = f"withdraw-links {caller.account_id}"
    async with resources.reading() as conn:
        found = await list_links(conn, caller.account_id, position(paging, name), paging.limit)
    return page_of(found.map(lambda link: _shown(resources, caller, link)), name)


@router.delete(
    "/v1/withdraw-links/{link_id}", summary="Delete a withdraw link", responses=problems("forbidden", "not_found")
)
async def delete_own_link(caller: Send, resources: Res, link_id: PathId) -> LinkOut:
    """Scope: `send`. Takes effect at once; what was claimed before is paid. A repeat gives the same answer.

    Any key with this scope may delete any link of its account, because deleting spends nothing.
    """
    link = await _own_link(resources, caller, link_id)
    async with resources.reading() as conn:
        await delete_link(conn, link.id)
    return _shown(resources, caller, await _own_link(resources, caller, link_id))


# Claiming


@public.get("/lnurlw/{sealed_id}", summary="What a withdraw link gives (LNURL-withdraw)")
async def show_gift(resources: Res, sealed_id: PathId) -> dict[str, Any]:
    """No key needed. LUD-03; each answer has a `k1` of its own, for one claim. Errors are LNURL's."""
    link = await _sealed_link(resources, sealed_id)
    _check_open(link)
    return {
        "tag": "withdrawRequest",
        "callback": f"{_url(resources, link)}/callback",
        "k1": _new_k1(resources, link),
        "defaultDescription": link.memo or "",
        "minWithdrawable": link.amount_msat,
        "maxWithdrawable": link.amount_msat,
    }


@public.get("/lnurlw/{sealed_id}/callback", summary="Claim a withdraw link (LNURL-withdraw)")
async def claim(
    resources: Res,
    sealed_id: PathId,
    k1: Annotated[str, Query(description="From the answer before.")] = "",
    pr: Annotated[str, Query(description="An invoice over the link's amount.")] = "",
) -> dict[str, str]:
    """No key needed. LUD-03: OK says that the payment was accepted and is under way. A repeat changes nothing."""
    link = await _sealed_link(resources, sealed_id)
    if not _K1.fullmatch(k1) or not hmac.compare_digest(k1, _k1(resources, link, bytes.fromhex(k1)[:_NONCE_BYTES])):
        raise Invalid("This is no k1 of this link.")
    body_hash = hashlib.sha256(f"lnurlw\n{link.id}\n{k1}\n{pr.lower()}".encode()).digest()
    if not await _is_answered(resources, link, k1, body_hash):
        _check_open(link)
        invoice = _invoice(resources, link, pr)
        await _require_prices(resources, link, invoice)
        asked = _payment(link, k1, body_hash, invoice)
        run = await payment_run.start(
            resources.temporal, resources.listener, asked, payee="whoever has the withdraw link"
        )
        run.leave()
        if not await _accepted(resources, link, k1, body_hash):
            await keep_accepted(resources, payment_run.Started(asked, datetime.now(UTC)), run.workflow_id)
    return {"status": "OK"}


async def _require_prices(resources: Resources, link: WithdrawLink, invoice: bolt11.Bolt11) -> None:
    """As for the owner's own payments: Unavailable when a limit needs a price that is too old."""
    resolved = await resolve(resources, invoice.bolt11)
    async with resources.reading() as conn:
        payer = await find_payer(conn, link.account_id, link.wallet_id, link.key_id)
    if payer is None:
        raise InvariantBroken(f"{link.id} has no wallet")
    await require_prices(resources, payer, "internal" if resolved.is_ours else "lightning")


async def _accepted(resources: Resources, link: WithdrawLink, k1: str, body_hash: bytes) -> bool:
    """Wait until the claim has its money, or a no (raised). With every worker away it stays accepted: False."""
    deadline, answered = Deadline(_ACCEPT_LIMIT_S), False
    while not answered and deadline.left_s > 0:
        await asyncio.sleep(_ACCEPT_POLL_S)
        answered = await _is_answered(resources, link, k1, body_hash)
    return answered


async def _is_answered(resources: Resources, link: WithdrawLink, k1: str, body_hash: bytes) -> bool:
    """Whether this claim is known. Raises the no that it got, and Refused when the k1 was used for another invoice."""
    async with resources.reading() as conn:
        known = await find_key(conn, link.account_id, _key(k1))
    if known is None:
        return False
    if known.body_hash != body_hash:
        raise Refused("This k1 was used for another invoice.", code="idempotency_conflict")
    if known.refusal is not None:
        raise _in_the_claimants_words(as_error(known.refusal))
    return True


def _in_the_claimants_words(refusal: EngineError) -> EngineError:
    """The owner's balance and state are nobody else's business."""
    if refusal.code in _OWNERS_AFFAIRS:
        return Refused("The owner of this link cannot pay it at the moment; ask the owner.", code=refusal.code)
    return refusal


def _invoice(resources: Resources, link: WithdrawLink, text: str) -> bolt11.Bolt11:
    invoice = bolt11.decode(text.removeprefix("lightning:"), network=resources.settings.bitcoin_network)
    if invoice.amount_msat != link.amount_msat:
        raise Invalid(f"The invoice must ask for exactly {link.amount_msat} msat.", code="amount_mismatch")
    if invoice.expires_at <= datetime.now(UTC):
        raise Invalid("The invoice has expired.", code="invoice_expired")
    return invoice


def _payment(link: WithdrawLink, k1: str, body_hash: bytes, invoice: bolt11.Bolt11) -> PaymentRequest:
    return PaymentRequest(
        payment_id=PaymentId(id_for_key("pay", link.account_id, _key(k1))),
        account_id=link.account_id,
        wallet_id=link.wallet_id,
        idempotency_key=_key(k1),
        body_hash=body_hash.hex(),
        destination=invoice.bolt11,
        bolt11=invoice.bolt11,
        payment_hash=invoice.payment_hash,
        amount_in_invoice=True,
        amount_msat=link.amount_msat,
        max_fee_msat=default_routing_cap(link.amount_msat),
        memo=link.memo,
        api_key_id=link.key_id,
        withdraw_link_id=link.id,
    )


def _key(k1: str) -> str:
    return f"lnurlw:{k1}"


def _new_k1(resources: Resources, link: WithdrawLink) -> str:
    return _k1(resources, link, secrets.token_bytes(_NONCE_BYTES))


def _k1(resources: Resources, link: WithdrawLink, nonce: bytes) -> str:
    """Sixteen random bytes and a seal over them, of this link and of ours."""
    return (nonce + _seal(resources, f"withdraw claim\n{link.id}\n{nonce.hex()}")).hex()


def _seal(resources: Resources, text: str) -> bytes:
    """Sixteen bytes that only we can make of this text."""
    secret = bytes.fromhex(resources.settings.preimage_secret.get_secret_value())
    return hmac.digest(secret, text.encode(), "sha256")[:_SEAL_BYTES]


# Reading


async def _find_link(resources: Resources, link_id: str) -> WithdrawLink:
    async with resources.reading() as conn:
        link = await find_link(conn, WithdrawLinkId(link_id))
    if link is None:
        raise no_such("withdraw link")
    return link


async def _sealed_link(resources: Resources, sealed_id: str) -> WithdrawLink:
    """The link that this part of its URL opens. Raises NotFound, also when only the seal is wrong."""
    link_id = sealed_id.rpartition("_")[0]
    if not hmac.compare_digest(sealed_id, _sealed_id(resources, link_id)):
        raise no_such("withdraw link")
    return await _find_link(resources, link_id)


def _check_open(link: WithdrawLink) -> None:
    status = link.status(datetime.now(UTC))
    if status != "open":
        raise Refused(why_closed(status), code="withdraw_link_closed", link_status=status)


async def _own_link(resources: Resources, caller: Caller, link_id: str) -> WithdrawLink:
    link = await _find_link(resources, link_id)
    if link.account_id != caller.account_id:
        raise no_such("withdraw link")
    return link


def _url(resources: Resources, link: WithdrawLink) -> str:
    return f"{resources.settings.public_url}/lnurlw/{_sealed_id(resources, link.id)}"


def _sealed_id(resources: Resources, link_id: str) -> str:
    seal = _seal(resources, f"withdraw link\n{link_id}").hex()
    return f"{link_id}_{seal}"


def _shown(resources: Resources, caller: Caller, link: WithdrawLink) -> LinkOut:
    """Every answer to a key goes through here: the secret is its own, or it may spend without a limit anyway."""
    may_claim = caller.spend_limit_sat is None or caller.key_id == link.key_id
    url = _url(resources, link) if may_claim else None
    return LinkOut(
        id=link.id,
        wallet_id=link.wallet_id,
        amount_msat=link.amount_msat,
        uses=link.uses,
        uses_left=link.uses_left,
        status=link.status(datetime.now(UTC)),
        lnurl=write_lnurl(url) if url else None,
        url=url,
        memo=link.memo,
        expires_at=link.expires_at,
        created_at=link.created_at,
    )
