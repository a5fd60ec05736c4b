"""Doors without a key: LNURL's and the tip pages. Whoever comes is counted by address (`door.py`).

LNURL's own way of saying no is 200 with `{"status": "ERROR", "reason": …}` (LUD-01), never a problem document: who
calls there knows LNURL and not us. Browsers of other sites may ask there, as wallets in the browser do.
"""

import ipaddress
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from api.deps import Services, no_such
from api.errors import in_public_words
from engine.domain.errors import EngineError, Invalid
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

_V6_SITE = 64
_MEMO_BYTES = 639
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Payee:
    """A user of ours whom anybody may pay."""

    account_id: AccountId
    wallet_id: WalletId
    name: str
    """In lower case, as in the lightning address."""
    most_msat: Msat
    """What a stranger is offered at the most: one bitcoin, or what can come in now where that is less."""


class LnurlRoute(APIRoute):
    """A route that answers errors as LNURL does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI's, with LNURL's errors, open to pages of other sites."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handle(request)
            except EngineError as error:
                _status, _code, reason = in_public_words(request, error)
                response = JSONResponse({"status": "ERROR", "reason": reason})
            response.headers["Access-Control-Allow-Origin"] = "*"
            response.headers["Cache-Control"] = "no-store"
            return response

        return answer


def trusting(networks: Sequence[str]) -> Callable[[str], bool]:
    """Whether an address is in one of these, which are valid."""
    known = [ipaddress.ip_network(network) for network in networks]

    @lru_cache(maxsize=_REMEMBERED)
    def trusts(host: str) -> bool:
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(ip in network for network in known)

    return trusts


@lru_cache(maxsize=_REMEMBERED)
def site(host: str) -> str:
    """The address, or of an IPv6 one the /64 that it is in: nobody is given less, and one has 2^64 addresses."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.IPv6Network((ip, _V6_SITE), strict=False).network_address)


async def find_payee(services: Services, username: str) -> Payee:
    """Whom a name in a path means. A locked account still receives; a closed one is not found. Raises NotFound."""
    if is_username(username):
        with translated():
            row = await services.pool.fetchrow(
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
