"""A user of this bank as a payee: whoever knows the username may pay, without an API key."""

from dataclasses import dataclass

from engine.domain.ids import AccountId, WalletId
from engine.domain.money import Msat
from engine.ledger.database import Pool, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class PayeeRow:
    """The account of a username, and what can come in for it over Lightning."""

    account_id: AccountId
    wallet_id: WalletId
    username: str
    inbound_msat: Msat | None
    """The most that one node could receive now. None: no node has reported lately."""


async def find_payee_row(pool: Pool, username: str) -> PayeeRow | None:
    """The account with this username, whatever the case. A locked account still receives; a closed one is not found."""
    with translated():
        row = await pool.fetchrow(
            """SELECT a.id AS account_id, a.username, w.id AS wallet_id,
                      (SELECT max(inbound_msat) FROM bank.nodes
                        WHERE bank.has_reported(reported_at)) AS inbound_msat
                 FROM bank.accounts a JOIN bank.wallets w ON w.account_id = a.id AND w.currency = 'BTC'
                WHERE lower(a.username) = lower($1) AND a.status <> 'closed'""",
            username,
        )
    return None if row is None else PayeeRow(**row)
