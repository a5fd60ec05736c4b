"""A user whom anybody may pay without an API key: by the lightning address or on the public page."""

from dataclasses import dataclass

from api.service.resources import Resources
from engine.domain.errors import Invalid, no_such
from engine.domain.ids import AccountId, WalletId
from engine.domain.lnurl import COMMENT_LENGTH
from engine.domain.money import MSAT_PER_SAT, Msat, two_digits_floor
from engine.domain.outside import one_line
from engine.domain.username import is_username
from engine.views.payee import find_payee_row

MIN_RECEIVED_MSAT = Msat(MSAT_PER_SAT)
MAX_RECEIVED_MSAT = Msat(100_000_000 * MSAT_PER_SAT)
"""One bitcoin: the largest invoice that a stranger may ask for."""
EXPIRY_S = 900
"""Seconds until an invoice for a stranger expires. Each takes room at a node, and a stranger pays at once or never."""

_MEMO_BYTES = 639


@dataclass(frozen=True, slots=True, kw_only=True)
class Payee:
    """A user whom anybody may pay."""

    account_id: AccountId
    wallet_id: WalletId
    name: str
    """In lower case, as in the lightning address."""
    most_msat: Msat
    """The most that a stranger is offered: one bitcoin, or what can come in now where that is less."""


async def find_payee(resources: Resources, username: str) -> Payee:
    """The user of a name in a path. A locked account still receives; a closed one is not found. Raises NotFound."""
    row = await find_payee_row(resources.pool, username) if is_username(username) else None
    if row is None:
        raise no_such("user")
    inbound_msat = MAX_RECEIVED_MSAT if row.inbound_msat is None else two_digits_floor(row.inbound_msat)
    return Payee(
        account_id=row.account_id,
        wallet_id=row.wallet_id,
        name=row.username.lower(),
        most_msat=max(MIN_RECEIVED_MSAT, min(MAX_RECEIVED_MSAT, inbound_msat)),
    )


def strangers_memo(text: str) -> str | None:
    """A stranger's comment as the memo of an invoice; None for an empty one. Raises Invalid for too long a one."""
    if len(text) > COMMENT_LENGTH:
        raise Invalid(f"A comment has at most {COMMENT_LENGTH} characters.")
    return one_line(text, _MEMO_BYTES) or None
