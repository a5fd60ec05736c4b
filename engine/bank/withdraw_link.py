"""Withdraw links and their uses. Rows only; the money is a payment's.

    made       a row: nothing is held, nothing moves
    claimed    a use is taken in the transaction that holds or moves the money (activities/payment.py)
    failed     the use comes back in the transaction that releases the money

A use is taken under the lock of the link's row, so of any number of claims at once exactly as many pass as there are
uses; the constraint on `uses_left` says the same. The row is locked before any balance, always.

A link lives as long as the API key that made it, and its claims count towards that key's cap.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from engine.domain.errors import InvariantBroken, Refused
from engine.domain.ids import AccountId, ApiKeyId, PaymentId, WalletId, WithdrawLinkId
from engine.domain.money import Msat
from engine.ledger.database import Connection, change_any, change_one, translated

COLUMNS = """id, account_id, wallet_id, key_id, amount_msat, uses, uses_left, memo, expires_at, deleted_at, created_at,
    (SELECT k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
       FROM bank.api_keys k WHERE k.id = key_id) AS key_lives"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawLink:
    """A link as the bank has it."""

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
        """`open` while it can be claimed; else `deleted` (or its key has ended), `expired` or `used_up`."""
        if self.deleted_at is not None or not self.key_lives:
            return "deleted"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "open" if self.uses_left else "used_up"


async def add_link_in_tx(conn: Connection, link: WithdrawLink) -> None:
    """Promise it."""
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
    """From now on it pays nothing; claims that were taken before go on. A repeat changes nothing."""
    await change_any(
        conn,
        "UPDATE bank.withdraw_links SET deleted_at = clock_timestamp() WHERE id = $1 AND deleted_at IS NULL",
        link_id,
    )


async def take_use_in_tx(conn: Connection, link_id: WithdrawLinkId, payment_id: PaymentId, amount_msat: Msat) -> None:
    """Take one use for this payment. Raises Refused (`withdraw_link_closed`) when there is none to take."""
    with translated():
        row = await conn.fetchrow(
            f"SELECT {COLUMNS} FROM bank.withdraw_links WHERE id = $1 FOR UPDATE",  # noqa: S608 - constant
            link_id,
        )
        # asked once more: what the row's own statement says of the key is older than the lock, if it waited for it
        key_lives = row and await conn.fetchval(
            """SELECT revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
                 FROM bank.api_keys WHERE id = $1""",
            row["key_id"],
        )
    if row is None or row["amount_msat"] != amount_msat:
        raise InvariantBroken(f"{payment_id} claims {amount_msat} msat of a link that does not say so")
    status = replace(WithdrawLink(**row), key_lives=bool(key_lives)).status(datetime.now(UTC))
    if status != "open":
        raise Refused(_SENTENCES[status], code="withdraw_link_closed", link_status=status)
    await change_one(conn, "UPDATE bank.withdraw_links SET uses_left = uses_left - 1 WHERE id = $1", link_id)
    with translated():
        await conn.execute("INSERT INTO bank.withdraw_claims(payment_id, link_id) VALUES ($1, $2)", payment_id, link_id)


async def give_use_back_in_tx(conn: Connection, payment_id: PaymentId) -> None:
    """The payment has failed: if it was a claim, its link has one use more. Once, where the payment is released."""
    with translated():
        is_claim: bool = await conn.fetchval(
            "SELECT EXISTS (SELECT FROM bank.withdraw_claims WHERE payment_id = $1)", payment_id
        )
    if is_claim:
        await change_one(
            conn,
            """WITH returned AS (
                   UPDATE bank.withdraw_claims SET returned_at = clock_timestamp()
                    WHERE payment_id = $1 AND returned_at IS NULL RETURNING link_id)
               UPDATE bank.withdraw_links l SET uses_left = uses_left + 1 FROM returned r WHERE l.id = r.link_id""",
            payment_id,
        )


_SENTENCES = {
    "deleted": "This link has been withdrawn by its owner.",
    "expired": "This link has expired.",
    "used_up": "This link has been used.",
}


def why_closed(status: str) -> str:
    """The sentence for whoever comes with a link that is not open."""
    return _SENTENCES[status]
