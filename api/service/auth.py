"""Who asks, and what its key allows.

The bootstrap key of the settings has the scope `admin` and no account. Every key is looked up on every request, so
revoking one counts at once; those of requests that come together are looked up together. Requests are counted per key
in Redis; when Redis is away they are not, rather than turning payments away.

The roles of a key count while its account is active, and every account that it comes from: an operator who is locked
has none left, whichever keys he has made for whom. What a user may do with a locked account is not decided here.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from api.http.codes import Forbidden, RateLimited, Unauthenticated
from api.service.resources import Resources
from engine.bank.accounts import Standing, find_api_keys_by_token, lock_key_in_tx
from engine.bank.audit import Act
from engine.domain.errors import NotFound
from engine.domain.ids import AccountId, ApiKeyId
from engine.domain.limits import Window
from engine.domain.money import Sat
from engine.ledger.database import Connection

Role = Literal["support", "treasury", "finance", "admin"]
"""Operators: who helps users, who moves the bank's own money, who answers for the books, and who may all of it."""
Scope = Literal["read", "receive", "send"] | Role
ROLES: frozenset[str] = frozenset(get_args(Role))
ADMIN_OWNER = AccountId("admin")
"""Under whose name the idempotency keys of the bootstrap administrator are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, and what its key allows."""

    key_id: str
    scopes: frozenset[str]
    account: AccountId | None = None
    expires_at: datetime | None = None
    spend_limit_sat: Mapping[Window, Sat] | None = None

    @property
    def is_admin(self) -> bool:
        """Whether it may act for others."""
        return "admin" in self.scopes

    @property
    def is_operator(self) -> bool:
        """Whether what it does belongs into the audit trail."""
        return bool(ROLES & self.scopes)

    @property
    def owner(self) -> AccountId:
        """Who it is: under this name its idempotency keys and its acts are kept, whichever of its keys it uses."""
        return self.account or ADMIN_OWNER

    def act(
        self, action: str, *, account_id: AccountId | None = None, subject: str | None = None, **detail: object
    ) -> Act:
        """A line for the audit trail: this caller did that. No secrets."""
        return Act(
            operator=self.owner,
            key_id=self.key_id,
            action=action,
            account_id=account_id,
            subject=subject,
            detail=detail,
        )

    def require(self, scope: Scope) -> None:
        """Raises Forbidden for a key without this scope."""
        if scope not in self.scopes:
            raise Forbidden(f"This needs a key with the scope '{scope}'.", scope=scope)

    @property
    def account_id(self) -> AccountId:
        """Its own account. Raises Forbidden for the bootstrap key, which has none."""
        if self.account is None:
            raise Forbidden("The bootstrap key has no account of its own; use a key of the account.")
        return self.account


async def authenticate(resources: Resources, token: str | None) -> Caller:
    """Whoever has the key. Raises Unauthenticated."""
    caller = await _find_caller(resources, token) if token else None
    if caller is None:
        raise Unauthenticated("Send a valid API key: Authorization: Bearer <key>.")
    return caller


async def still_may_in_tx(conn: Connection, caller: Caller) -> Standing | None:
    """Lets the caller go on, whose body may have come long after its key; nobody revokes the key meanwhile.

    For whatever gives or takes power, and for operators' words on money: first in the transaction. Before a word that a
    workflow carries out it is asked without one, and holds nobody up. None for the bootstrap key. Raises
    Unauthenticated when the key has been revoked, Forbidden when its roles have gone.
    """
    if caller.account is None:
        return None
    standing = await lock_key_in_tx(conn, ApiKeyId(caller.key_id))
    if standing is None:
        raise Unauthenticated("This API key has been revoked, or has expired.")
    if caller.is_operator and not standing.has_powers:
        raise Forbidden("The roles of this key have ended: an account that it comes from is locked or closed.")
    return standing


def no_such(thing: str) -> NotFound:
    """The same words for what does not exist and for what belongs to somebody else."""
    return NotFound(f"There is no such {thing}.")


async def _find_caller(resources: Resources, token: str) -> Caller | None:
    if hmac.compare_digest(token.encode(), resources.settings.admin_key.get_secret_value().encode()):
        return Caller(key_id="bootstrap", scopes=frozenset({"admin"}))
    key = await resources.lookups.ask(find_api_keys_by_token, token)
    if key is None:
        return None
    return Caller(
        key_id=key.id,
        scopes=frozenset(key.scopes) if key.has_powers else frozenset(key.scopes) - ROLES,
        account=key.account_id,
        expires_at=key.expires_at,
        spend_limit_sat=key.spend_limit_sat,
    )


async def count(resources: Resources, caller: Caller) -> None:
    """Count a request against the key's limit by the minute. Raises RateLimited above it."""
    limit = resources.settings.rate_limit_per_minute
    if limit == 0:
        return
    made, left_s = await resources.lookups.count(caller.key_id)
    if made > limit:
        raise RateLimited(f"This key may make {limit} requests a minute.", retry_after_s=max(1, left_s))
