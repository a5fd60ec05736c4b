"""The caller: who sent the request, and what the API key allows. What each role allows is in role.py.

The bootstrap key of the settings has the scope `admin` and no account. Every key is looked up on every request, so a
revocation counts at once; the keys of requests that come together are looked up together. Redis counts the requests of
each key. While Redis is away nothing is counted, because payments must go on.

The roles of a key count while its account, and every account that it comes from, is active. A locked operator has no
roles left, neither with his keys nor with those that come from them. What a user may do with a locked account is
decided in the books.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from api.http.codes import Forbidden, RateLimited, Unauthenticated
from api.service.resources import Resources
from api.service.role import ROLES, Role, Scope
from engine.bank.account.api_key import Standing, find_api_keys_by_token, lock_key_in_tx
from engine.bank.audit import Act
from engine.domain.ids import AccountId, ApiKeyId
from engine.domain.limit import Window
from engine.domain.money import Sat
from engine.ledger.database import Connection

ADMIN_OWNER = AccountId("admin")
"""Owns the idempotency keys of the bootstrap key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, and what the key allows."""

    key_id: str
    scopes: frozenset[str]
    account: AccountId | None = None
    expires_at: datetime | None = None
    spend_limit_sat: Mapping[Window, Sat] | None = None

    @property
    def is_admin(self) -> bool:
        """Whether it may act for other accounts."""
        return "admin" in self.scopes

    @property
    def is_operator(self) -> bool:
        """Whether its acts go into the audit trail."""
        return bool(ROLES & self.scopes)

    @property
    def owner(self) -> AccountId:
        """Owns its idempotency keys and its acts, whichever of the account's keys is used."""
        return self.account or ADMIN_OWNER

    def act(
        self, action: str, *, account_id: AccountId | None = None, subject: str | None = None, **detail: object
    ) -> Act:
        """A line for the audit trail: this caller did that. It must hold no secrets."""
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

    def require_role(self, *roles: Role) -> None:
        """Raises Forbidden for a key with none of these roles, unless it has `admin`."""
        if not self.has_role(*roles):
            enough = sorted({*roles, "admin"})
            raise Forbidden(f"This needs a key with the role {' or '.join(enough)}.", scope=" ".join(roles))

    def has_role(self, *roles: Role) -> bool:
        """Whether it has one of these roles, or `admin`."""
        return bool({*roles, "admin"} & self.scopes)

    @property
    def account_id(self) -> AccountId:
        """Its own account. Raises Forbidden for the bootstrap key, which has none."""
        if self.account is None:
            raise Forbidden("The bootstrap key has no account of its own; use a key of the account.")
        return self.account


async def authenticate(resources: Resources, token: str | None) -> Caller:
    """The caller with this key. Raises Unauthenticated."""
    caller = await _find_caller(resources, token) if token else None
    if caller is None:
        raise Unauthenticated("Send a valid API key: Authorization: Bearer <key>.")
    return caller


async def still_may_in_tx(conn: Connection, caller: Caller) -> Standing | None:
    """Check the caller's key again and lock it against revocation: the body may have come long after the key.

    Everything that gives or takes power calls this first in its transaction, and so do operators' decisions on money. A
    decision that a workflow carries out calls it outside of a transaction, where the lock holds nobody up. None for the
    bootstrap key. Raises Unauthenticated when the key has been revoked, Forbidden when its roles have ended.
    """
    if caller.account is None:
        return None
    standing = await lock_key_in_tx(conn, ApiKeyId(caller.key_id))
    if standing is None:
        raise Unauthenticated("This API key has been revoked, or has expired.")
    if caller.is_operator and not standing.has_powers:
        raise Forbidden("The roles of this key have ended: an account that it comes from is locked or closed.")
    return standing


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
    """Count a request against the key's limit per minute. Raises RateLimited above it."""
    limit = resources.settings.rate_limit_per_minute
    if limit == 0:
        return
    made, left_s = await resources.lookups.count(caller.key_id)
    if made > limit:
        raise RateLimited(f"This key may make {limit} requests a minute.", retry_after_s=max(1, left_s))
