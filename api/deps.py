"""What a route is given: the process's services, and the caller, if it may call.

A caller is whoever has an API key: in `Authorization: Bearer …` or in `X-Api-Key`. The bootstrap key of the settings
has the scope `admin` and no account. Every key is looked up on every request, so revoking one counts at once; those of
requests that come together are looked up together. Requests are counted per key in Redis; when Redis is away they are
not, rather than turning payments away.

The roles of a key count while its account is active, and every account that it comes from: an operator who is locked
has none left, whichever keys he has made for whom. What a user may do with a locked account is not decided here.
"""

import hmac
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

import httpx
from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator
from temporalio.client import Client

from api.errors import Forbidden, RateLimited, Unauthenticated
from api.lane import Lanes
from api.lookups import Lookups
from engine.clients.announcements import Listener
from engine.clients.cache import Cache
from engine.clients.invoices import InvoiceNode
from engine.clients.web import Web
from engine.domain.errors import NotFound
from engine.domain.ids import AccountId, ApiKeyId, NodeName
from engine.domain.limits import Window
from engine.domain.money import Sat
from engine.ledger.accounts import Standing, find_api_keys_by_token, lock_key_in_tx
from engine.ledger.audit import Act
from engine.ledger.database import Connection, Pool, borrowed
from engine.ledger.limits import LimitBooks
from engine.settings import ApiSettings

Role = Literal["support", "treasury", "finance", "admin"]
"""Operators: who helps users, who moves the bank's own money, who answers for the books, and who may all of it."""
Scope = Literal["read", "receive", "send"] | Role
ROLES: frozenset[str] = frozenset(get_args(Role))
ADMIN_OWNER = AccountId("admin")
"""Under whose name the idempotency keys of the bootstrap administrator are kept."""

_ID = re.compile(r"[0-9A-Za-z_]{1,100}")


def _could_be_an_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise NotFound("There is no such thing.")
    return text


PathId = Annotated[str, AfterValidator(_could_be_an_id)]
"""An id in a path: what cannot be one is not found, and never reaches the database."""

_BEARER = HTTPBearer(auto_error=False, description="An API key.")
_HEADER = APIKeyHeader(name="X-Api-Key", auto_error=False, description="An API key, as an alternative.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything the process is connected to; made once in the lifespan."""

    settings: ApiSettings
    pool: Pool
    temporal: Client
    listener: Listener
    lanes: Lanes
    lightning_lanes: Lanes
    lookups: Lookups
    cache: Cache
    invoices: dict[NodeName, InvoiceNode]
    http: httpx.AsyncClient
    limits: LimitBooks
    web: Web

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """A connection for reads. Raises Unavailable while Postgres is away."""
        async with borrowed(self.pool) as connection:
            yield connection


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


async def get_services(request: Request) -> Services:
    """What the lifespan made."""
    services: Services = request.app.state.services
    return services


async def caller_of(request: Request) -> Caller:
    """Whoever has the key, counted. Raises Unauthenticated, RateLimited."""
    services = await get_services(request)
    bearer = await _BEARER(request)
    token = bearer.credentials if bearer else await _HEADER(request)
    caller = await _find_caller(services, token) if token else None
    if caller is None:
        raise Unauthenticated("Send a valid API key: Authorization: Bearer <key>.")
    request.state.caller = caller.key_id  # no stranger, for door.py
    await _count(services, caller)
    return caller


async def get_caller(
    request: Request,
    _bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
    _header: Annotated[str | None, Security(_HEADER)],
) -> Caller:
    """Dependency: as `caller_of`."""
    return await caller_of(request)


def needs(scope: Scope) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """Dependency: the caller, if its key has this scope."""

    async def allowed(caller: Annotated[Caller, Depends(get_caller)]) -> Caller:
        caller.require(scope)
        return caller

    return allowed


def asked_by_hand(**headers: str) -> dict[str, Any]:
    """`openapi_extra` of an operation that asks for its caller and these headers by itself, with their meaning.

    FastAPI takes 0.2 ms to resolve the dependencies of a payment: the two operations that are called most do without.
    """
    return {
        "security": [{scheme.scheme_name: []} for scheme in (_BEARER, _HEADER)],
        "parameters": [
            {
                "name": name.replace("_", "-"),
                "in": "header",
                "required": False,
                "schema": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "description": meaning,
            }
            for name, meaning in headers.items()
        ],
    }


def needs_role(*roles: Role) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """Dependency: the caller, if its key has one of these roles of operators; `admin` may all that any of them may."""
    enough = {*roles, "admin"}

    async def allowed(caller: Annotated[Caller, Depends(get_caller)]) -> Caller:
        if not enough & caller.scopes:
            raise Forbidden(f"This needs a key with the role {' or '.join(sorted(enough))}.", scope=" ".join(roles))
        return caller

    return allowed


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


async def _find_caller(services: Services, token: str) -> Caller | None:
    if hmac.compare_digest(token.encode(), services.settings.admin_key.get_secret_value().encode()):
        return Caller(key_id="bootstrap", scopes=frozenset({"admin"}))
    key = await services.lookups.ask(find_api_keys_by_token, token)
    if key is None:
        return None
    return Caller(
        key_id=key.id,
        scopes=frozenset(key.scopes) if key.has_powers else frozenset(key.scopes) - ROLES,
        account=key.account_id,
        expires_at=key.expires_at,
        spend_limit_sat=key.spend_limit_sat,
    )


async def _count(services: Services, caller: Caller) -> None:
    limit = services.settings.rate_limit_per_minute
    if limit == 0:
        return
    count, left_s = await services.lookups.count(caller.key_id)
    if count > limit:
        raise RateLimited(f"This key may make {limit} requests a minute.", retry_after_s=max(1, left_s))
