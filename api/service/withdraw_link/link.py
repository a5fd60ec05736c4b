"""Make, show, list and delete withdraw links: the use cases of their owner, for any door.

A link holds no money. Each claim is a payment (`claim.py`) that needs amount and routing cap in the wallet then.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel, Field

from api.service.auth import Caller
from api.service.idempotency import Intent, Outcome, find_replay, once
from api.service.resources import Resources
from api.service.withdraw_link.seal import link_url
from engine.bank.limit import find_payer
from engine.bank.withdraw_link.link import WithdrawLink, add_link_in_tx, delete_link, find_link
from engine.domain.errors import Invalid, no_such
from engine.domain.ids import ApiKeyId, WalletId, WithdrawLinkId, new_id
from engine.domain.lnurl import write_lnurl
from engine.domain.money import Msat
from engine.domain.page import Position, Slice
from engine.views.withdraw_link import list_links


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOrder:
    """The link that a caller wants."""

    wallet_id: WalletId
    amount_msat: Msat
    uses: int = 1
    expires_at: datetime | None = None
    """None: never."""
    memo: str | None = None
    key: str | None
    """The idempotency key, if there is one."""
    body_hash: bytes
    """SHA-256 of the order, by which a repeat is told from another order with the same key."""


async def make_link(resources: Resources, caller: Caller, order: LinkOrder) -> Outcome[LinkOut]:
    """Make a link, once for the key. Raises NotFound for another account's wallet, Invalid for a time in the past."""
    account_id, key_id = caller.account_id, ApiKeyId(caller.key_id)
    async with resources.reading() as conn:
        if await find_payer(conn, account_id, order.wallet_id, key_id) is None:
            raise no_such("wallet")
    intent = Intent(owner=account_id, key=order.key, body_hash=order.body_hash)
    known = await find_replay(resources, intent)
    made = await _make(resources, caller, order, intent) if known is None else Outcome(known, is_replay=True)
    return Outcome(await show_link(resources, caller, made.content), is_replay=made.is_replay)


async def show_link(resources: Resources, caller: Caller, link_id: str) -> LinkOut:
    """A link of the caller's account. Raises NotFound."""
    return show(resources, caller, await _own_link(resources, caller, link_id))


async def list_own_links(resources: Resources, caller: Caller, after: Position, limit: int) -> Slice[LinkOut]:
    """One page of the links of the caller's account, newest first."""
    async with resources.reading() as conn:
        found = await list_links(conn, caller.account_id, after, limit)
    return found.map(lambda link: show(resources, caller, link))


async def delete_own_link(resources: Resources, caller: Caller, link_id: str) -> LinkOut:
    """Delete a link of the caller's account. A repeat gives the same answer. Raises NotFound."""
    link = await _own_link(resources, caller, link_id)
    async with resources.reading() as conn:
        await delete_link(conn, link.id)
    return await show_link(resources, caller, link_id)


def show(resources: Resources, caller: Caller, link: WithdrawLink) -> LinkOut:
    """The link as this caller may see it: its secrets go to the key that made it, and to keys without a spend limit."""
    may_claim = caller.spend_limit_sat is None or caller.key_id == link.key_id
    url = link_url(resources.settings, link.id) if may_claim else None
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


async def _make(resources: Resources, caller: Caller, order: LinkOrder, intent: Intent) -> Outcome[str]:
    now = datetime.now(UTC)
    if order.expires_at is not None and order.expires_at <= now:
        raise Invalid("expires_at lies in the past.", field="expires_at")
    link = WithdrawLink(
        id=WithdrawLinkId(new_id("wdl")),
        account_id=caller.account_id,
        wallet_id=order.wallet_id,
        key_id=ApiKeyId(caller.key_id),
        amount_msat=order.amount_msat,
        uses=order.uses,
        uses_left=order.uses,
        memo=order.memo,
        expires_at=order.expires_at,
        deleted_at=None,
        created_at=now,
    )
    return await once(resources, intent, link.id, lambda conn: add_link_in_tx(conn, link))


async def _own_link(resources: Resources, caller: Caller, link_id: str) -> WithdrawLink:
    async with resources.reading() as conn:
        link = await find_link(conn, WithdrawLinkId(link_id))
    if link is None or link.account_id != caller.account_id:
        raise no_such("withdraw link")
    return link
