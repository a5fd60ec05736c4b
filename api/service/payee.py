"""A user of ours whom anybody may pay, without a key: by his lightning address or on his page."""

from dataclasses import dataclass

from api.service.auth import no_such
from api.service.resources import Resources
from engine.domain.errors import Invalid
from engine.domain.ids import AccountId, WalletId
from engine.domain.lnurl import COMMENT_LENGTH
from engine.domain.money import MSAT_PER_SAT, Msat, two_digits_floor
from engine.domain.outside import one_line
from engine.domain.usernames import is_username
from engine.ledger.database import translated

MIN_RECEIVED_MSAT = Msat(MSAT_PER_SAT)
MAX_RECEIVED_MSAT = Msat(100_000_000 * MSAT_PER_SAT)
"""One bitcoin: what a stranger may ask an invoice for."""
EXPIRY_S = 900
"""Of invoices for strangers. They cost a node room, and whoever asks pays at once or never."""

_MEMO_BYTES = 639


@dataclass(frozen=True, slots=True, kw_only=True)
class Payee:
    """A user of ours whom anybody may pay."""

    account_id: AccountId
    wallet_id: WalletId
    name: str
    """In lower case, as in the lightning address."""
    most_msat: Msat
    """What a stranger is offered at the most: one bitcoin, or what can come in now where that is less."""


async def find_payee(resources: Resources, username: str) -> Payee:
    """Whom a name in a path means. A locked account still receives; a closed one is not found. Raises NotFound."""
    if is_username(username):
        with translated():
            row = await resources.pool.fetchrow(
                """SELECT a.id, a.username, w.id AS wallet_id,
                          (SELECT max(inbound_msat) FROM bank.nodes
                            WHERE bank.has_reported(reported_at)) AS inbound_msat
                     FROM bank.accounts a JOIN bank.wallets w ON w.account_id = a.id AND w.currency = 'BTC'
                    WHERE lower(a.username) = lower($1) AND a.status <> 'closed'""",
                username,
            )
        if row is not None:
            inbound_msat = MAX_RECEIVED_MSAT if row["inbound_msat"] is None else two_digits_floor(row["inbound_msat"])
            return Payee(
                account_id=row["id"],
                wallet_id=row["wallet_id"],
                name=row["username"].lower(),
                most_msat=max(MIN_RECEIVED_MSAT, min(MAX_RECEIVED_MSAT, inbound_msat)),
            )
    raise no_such("user")


def strangers_memo(text: str) -> str | None:
    """What a stranger wrote, as the memo of an invoice. None for nothing. Raises Invalid for what is too long."""
    if len(text) > COMMENT_LENGTH:
        raise Invalid(f"A comment has at most {COMMENT_LENGTH} characters.")
    return one_line(text, _MEMO_BYTES) or None
