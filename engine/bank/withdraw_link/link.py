"""The rows of withdraw links. A link holds no money; each claim is a payment (`use.py`).

A link lives as long as the API key that made it, and its claims count towards that key's spend limit.
"""

from dataclasses import dataclass
from datetime import datetime

from engine.domain.ids import AccountId, ApiKeyId, WalletId, WithdrawLinkId
from engine.domain.money import Msat
from engine.ledger.database import Connection, change_any, translated

COLUMNS = """id, account_id, wallet_id, key_id, amount_msat, uses, uses_left, memo, expires_at, deleted_at, created_at,
    (SELECT k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
       FROM bank.api_keys k WHERE k.id = key_id) AS key_lives"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawLink:
    """The row of a link."""

    id: WithdrawLinkId
    account_id: AccountId
    wallet_id: WalletId
    key_id: ApiKeyId
    amount_msat: Msat
    uses: int
    uses_left: int
    memo: str | None
    expires_at: datetime | None
    deleted_at: datetime | None
    created_at: datetime
    key_lives: bool = True
    """Whether the key that made it is neither revoked nor expired."""

    def status(self, now: datetime) -> str:
        """`open` while it can be claimed; else `deleted` (also when its key has ended), `expired` or `used_up`."""
        if self.deleted_at is not None or not self.key_lives:
            return "deleted"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "open" if self.uses_left else "used_up"


async def add_link_in_tx(conn: Connection, link: WithdrawLink) -> None:
    """Write the row."""
    with translated():
        await conn.execute(
            """INSERT INTO bank.withdraw_links(id, account_id, wallet_id, key_id, amount_msat, uses, uses_left, memo,
                   expires_at) VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8)""",
            link.id,
            link.account_id,
            link.wallet_id,
            link.key_id,
            link.amount_msat,
            link.uses,
            link.memo,
            link.expires_at,
        )


async def find_link(conn: Connection, link_id: WithdrawLinkId) -> WithdrawLink | None:
    """The link, whatever its status."""
    with translated():
        row = await conn.fetchrow(f"SELECT {COLUMNS} FROM bank.withdraw_links WHERE id = $1", link_id)  # noqa: S608 - constant
    return None if row is None else WithdrawLink(**row)


async def delete_link(conn: Connection, link_id: WithdrawLinkId) -> None:
    """End the link: it pays no more claims. Claims that have taken a use go on. A repeat changes nothing."""
    await change_any(
        conn,
        "UPDATE bank.withdraw_links SET deleted_at = clock_timestamp() WHERE id = $1 AND deleted_at IS NULL",
        link_id,
    )


_SENTENCES = {
    "deleted": "This link has been withdrawn by its owner.",
    "expired": "This link has expired.",
    "used_up": "This link has been used.",
}


def why_closed(status: str) -> str:
    """The sentence that tells a claimant why the link is not open."""
    return _SENTENCES[status]
