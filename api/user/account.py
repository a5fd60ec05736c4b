"""Accounts and their API keys.

An administrator opens accounts. Keys are made by an administrator, with any scopes, or by the account's own keys, which
can hand on what they have and no more: a subset of their scopes, for no longer than they last themselves. The same rule
decides which keys a key may revoke: those that can do nothing that it cannot. A key that may spend so much and no more
hands on no spending at all: what its keys spent would have to count as its own. Of the keys that spend it revokes
itself and no other.

Each key knows which key made it, and falls with it. So when a key is in wrong hands, revoking it is enough; an
administrator who only exchanges his own may keep what it has made.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.access import PathId, get_caller, get_resources, needs, needs_role
from api.http.body import Body, Content, Expiry, ExternalId, JsonBody, Text, documented
from api.http.codes import Forbidden
from api.http.errors import problems
from api.http.idempotency_key import mark_replayed, optional_key
from api.http.paging import Listing, Page, Paging
from api.service.auth import Caller, Scope, no_such, still_may_in_tx
from api.service.idempotency import Intent, find_replay, once
from api.service.resources import Resources
from api.user.wallet import WalletOut, read_wallets
from engine.bank import accounts
from engine.bank.audit import record_in_tx
from engine.domain.errors import Invalid, InvariantBroken
from engine.domain.ids import AccountId, ApiKeyId, new_id
from engine.domain.limits import MAX_LIMIT_SAT, Window
from engine.domain.money import Sat
from engine.domain.usernames import PATTERN, check_username
from engine.ledger.database import Connection, transaction

router = APIRouter(tags=["accounts"])
AnyCaller = Annotated[Caller, Depends(get_caller)]
Key = Annotated[str | None, Depends(optional_key)]
Res = Annotated[Resources, Depends(get_resources)]
_MOST_GENERATIONS = 16
"""So many keys may stand in a row, each made by the one before."""
_MOST_NAMED = 100
"""So many keys that fell with another one stand in the audit trail by name; all are counted."""
_KEYS = Listing(
    columns="id, name, scopes, created_at, expires_at, revoked_at, spend_limit_sat, made_by",
    source="bank.api_keys",
    condition="account_id = $1",
)


class NewAccountIn(Content):
    """An account to be opened; its bitcoin wallet comes with it."""

    username: Annotated[Text, Field(min_length=3, max_length=50)] | None = Field(
        default=None, description=f"{PATTERN}, not beginning like an address, unique whatever the case."
    )
    external_id: ExternalId | None = None
    level: Annotated[int, Field(ge=0, le=9)] = Field(default=0, description="Which limits apply.")


class AccountOut(BaseModel):
    """A user of the bank."""

    id: str = Field(examples=["acct_4t7q2v6x1b0n8r5d01k5y8z3c"])
    username: str | None
    external_id: str | None
    level: int
    status: str = Field(description="active, locked or closed")
    wallets: list[WalletOut]
    created_at: datetime


CapSat = Annotated[int, Field(ge=0, le=MAX_LIMIT_SAT)]


class SpendLimit(Content):
    """The most that all payments by one key may come to, in sat, within rolling windows. At least one of them."""

    day: CapSat | None = None
    week: CapSat | None = Field(default=None, description="Seven days.")
    month: CapSat | None = Field(default=None, description="Thirty days.")

    @model_validator(mode="after")
    def _says_something(self) -> "SpendLimit":
        if not self.caps:
            raise ValueError("name a cap for day, week or month")
        return self

    @property
    def caps(self) -> dict[Window, Sat]:
        """Those that were given."""
        given: dict[Window, int | None] = {"day": self.day, "week": self.week, "month": self.month}
        return {window: Sat(cap_sat) for window, cap_sat in given.items() if cap_sat is not None}


class NewKeyIn(Content):
    """A key to be made."""

    name: Annotated[Text, Field(min_length=1, max_length=100)]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=7)]
    expires_at: Expiry | None = Field(default=None, description="RFC 3339; none: never.")
    spend_limit_sat: SpendLimit | None = Field(default=None, description="None: as much as its account may.")


class RevocationQuery(BaseModel):
    """How far a revocation goes."""

    model_config = ConfigDict(extra="forbid")

    keep_made: bool = Field(
        default=False,
        description="Role `admin`: the keys that come from it stay valid. For exchanging a key that was not lost.",
    )


class KeyOut(BaseModel):
    """An API key, without its secret."""

    id: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    spend_limit_sat: dict[Window, int] | None = Field(description="What all its payments may come to, per window.")
    made_by: str | None = Field(description="The key that made it. null: the bootstrap key, or unknown.")


class NewKeyOut(KeyOut):
    """A key just made."""

    key: str | None = Field(description="Shown in the first answer only; null in a replay.")


@router.post(
    "/v1/accounts",
    status_code=201,
    summary="Open an account",
    responses=problems("forbidden", "invalid_request", "username_taken", "external_id_taken", "idempotency_conflict"),
    openapi_extra=documented(NewAccountIn, with_a_name={"username": "bob", "external_id": "user-7"}, bare={}),
)
async def open_account(
    response: Response,
    caller: Annotated[Caller, Depends(needs_role("admin"))],
    key: Key,
    body: Annotated[Body[NewAccountIn], Depends(JsonBody(NewAccountIn))],
    resources: Res,
) -> AccountOut:
    """Role: `admin`. The account's bitcoin wallet is opened with it."""
    asked = body.content
    if asked.username is not None:
        check_username(asked.username)
    new = accounts.NewAccount(
        id=AccountId(new_id("acct")), username=asked.username, external_id=asked.external_id, level=asked.level
    )

    async def make(conn: Connection) -> None:
        await still_may_in_tx(conn, caller)
        await accounts.open_bank_account_in_tx(conn, new)
        facts = body.content.model_dump(exclude_none=True)
        await record_in_tx(conn, caller.act("account.open", account_id=new.id, **facts))

    intent = Intent(owner=caller.owner, key=key, body_hash=body.hash)
    made = await once(resources, intent, new.id, make)
    if made.replayed:
        mark_replayed(response)
    return await _read_account(resources, AccountId(made.id))


@router.get("/v1/account", summary="Show your own account", responses=problems("forbidden"))
async def show_own_account(caller: Annotated[Caller, Depends(needs("read"))], resources: Res) -> AccountOut:
    """Scope: `read`."""
    return await _read_account(resources, caller.account_id)


@router.post(
    "/v1/accounts/{account_id}/api-keys",
    status_code=201,
    summary="Make an API key",
    responses=problems("forbidden", "not_found", "invalid_request", "idempotency_conflict"),
    openapi_extra=documented(
        NewKeyIn,
        shop={"name": "shop", "scopes": ["read", "receive"]},
        pocket_money={"name": "pocket", "scopes": ["send"], "spend_limit_sat": {"day": 10_000, "month": 100_000}},
    ),
)
async def make_api_key(
    response: Response,
    caller: AnyCaller,
    key: Key,
    body: Annotated[Body[NewKeyIn], Depends(JsonBody(NewKeyIn))],
    resources: Res,
    account_id: PathId,
) -> NewKeyOut:
    """Role: `admin`, or any key of the account for a subset of its own scopes, expiring no later than itself.

    `key` is shown once: a replay has null there.
    """
    account = await _account_of_keys(caller, resources, account_id)
    asked = body.content
    scopes = sorted(set(asked.scopes))
    intent = Intent(owner=caller.owner, key=key, body_hash=body.hash)
    replayed = await find_replay(resources, intent)
    if replayed is not None:
        mark_replayed(response)
        return await _read_key(resources, account, ApiKeyId(replayed), None)
    _check_hands_on(caller, scopes)
    _check_spending(caller, scopes)
    _check_expiry(caller, asked.expires_at)
    key_id, secret = ApiKeyId(new_id("key")), accounts.new_secret()

    async def make(conn: Connection) -> None:
        maker = await still_may_in_tx(conn, caller)
        if maker is not None and maker.generation >= _MOST_GENERATIONS:
            raise Forbidden(f"This key comes from {_MOST_GENERATIONS - 1} others in a row and cannot make another.")
        new = accounts.NewApiKey(
            id=key_id,
            account_id=account,
            name=asked.name,
            scopes=scopes,
            secret=secret,
            expires_at=asked.expires_at,
            spend_limit_sat=asked.spend_limit_sat.caps if asked.spend_limit_sat else None,
            made_by=ApiKeyId(caller.key_id) if maker else None,
        )
        await accounts.add_api_key_in_tx(conn, new)
        if caller.is_operator:
            facts: dict[str, object] = {"name": asked.name, "scopes": scopes, "expires_at": asked.expires_at}
            if asked.spend_limit_sat is not None:
                facts["spend_limit_sat"] = asked.spend_limit_sat.caps
            await record_in_tx(conn, caller.act("key.make", account_id=account, subject=key_id, **facts))

    made = await once(resources, intent, key_id, make)
    if made.replayed:
        mark_replayed(response)
    return await _read_key(
        resources, account, ApiKeyId(made.id), None if made.replayed else accounts.token(key_id, secret)
    )


@router.get(
    "/v1/accounts/{account_id}/api-keys",
    summary="List the account's API keys",
    responses=problems("forbidden", "not_found", "invalid_request"),
)
async def list_api_keys(
    caller: AnyCaller, resources: Res, account_id: PathId, paging: Annotated[Paging, Query()]
) -> Page[KeyOut]:
    """Role: `admin`, or scope `read` of the account. Newest first, revoked ones too."""
    account = await _account_of_keys(caller, resources, account_id)
    if not {"admin", "read"} & caller.scopes:
        raise Forbidden("This needs a key with the scope 'read'.", scope="read")
    name = f"api-keys {account}"
    async with resources.reading() as conn:
        rows, following = await _KEYS.read(conn, paging, name, account)
    return Page(items=[KeyOut(**row) for row in rows], next_cursor=following)


@router.delete(
    "/v1/accounts/{account_id}/api-keys/{key_id}",
    summary="Revoke an API key",
    responses=problems("forbidden", "not_found"),
)
async def revoke_api_key(
    caller: AnyCaller, resources: Res, account_id: PathId, key_id: PathId, query: Annotated[RevocationQuery, Query()]
) -> KeyOut:
    """Role: `admin`, or a key of the account that has all scopes of the one to be revoked.

    With a spend limit a key can revoke only itself among the keys that send.
    Takes effect at once, also for all keys that come from it: the keys that it made, the keys that those made, and so
    on, on any account. A repeat gives the same answer.
    """
    account = await _account_of_keys(caller, resources, account_id)
    known = await accounts.find_api_key(resources.pool, account, ApiKeyId(key_id))
    if known is None:
        raise no_such("API key")
    _check_hands_on(caller, known.scopes)
    if known.id != caller.key_id:
        _check_spending(caller, known.scopes)
    if query.keep_made and not caller.is_admin:
        raise Forbidden("Only an administrator may revoke a key and keep the keys that it made.", scope="admin")
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        revoked = await accounts.revoke_api_key_in_tx(conn, known.id, keep_made=query.keep_made)
        if revoked and caller.is_operator:
            taken = {key: of for key, of in revoked.items() if key != known.id}
            facts = {"taken": dict(list(taken.items())[:_MOST_NAMED]), "count": len(taken), "kept": query.keep_made}
            await record_in_tx(conn, caller.act("key.revoke", account_id=account, subject=known.id, **facts))
    return await _read_key(resources, account, known.id, None)


async def _account_of_keys(caller: Caller, resources: Resources, account_id: str) -> AccountId:
    """The account whose keys are meant, if the caller may see that it exists."""
    if not caller.is_admin and caller.account != account_id:
        raise no_such("account")
    if await accounts.find_account(resources.pool, AccountId(account_id)) is None:
        raise no_such("account")
    return AccountId(account_id)


def _check_hands_on(caller: Caller, scopes: Sequence[str]) -> None:
    if not caller.is_admin and not caller.scopes.issuperset(scopes):
        raise Forbidden("A key can only give, or take, what it has itself.", scopes=" ".join(sorted(caller.scopes)))


def _check_spending(caller: Caller, scopes: Sequence[str]) -> None:
    if caller.spend_limit_sat is not None and {"send", "admin"} & set(scopes):
        raise Forbidden(
            "A key with a spend limit cannot make, or revoke, keys that send: it may spend less than they.",
            scopes="send admin",
        )


def _check_expiry(caller: Caller, expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise Invalid("expires_at lies in the past.", field="expires_at")
    if not caller.is_admin and caller.expires_at and (expires_at is None or expires_at > caller.expires_at):
        raise Forbidden("A key can only make keys that expire no later than itself.")


async def _read_account(resources: Resources, account_id: AccountId) -> AccountOut:
    async with resources.reading() as conn:
        account = await accounts.find_account(conn, account_id)
        if account is None:
            raise InvariantBroken(f"there is no account {account_id}")
        return AccountOut(
            id=account.id,
            username=account.username,
            external_id=account.external_id,
            level=account.level,
            status=account.status,
            wallets=await read_wallets(conn, account_id),
            created_at=account.created_at,
        )


async def _read_key(resources: Resources, account_id: AccountId, key_id: ApiKeyId, token: str | None) -> NewKeyOut:
    known = await accounts.find_api_key(resources.pool, account_id, key_id)
    if known is None:
        raise InvariantBroken(f"there is no API key {key_id}")
    return NewKeyOut(
        id=known.id,
        name=known.name,
        scopes=list(known.scopes),
        created_at=known.created_at,
        expires_at=known.expires_at,
        revoked_at=known.revoked_at,
        spend_limit_sat=None if known.spend_limit_sat is None else dict(known.spend_limit_sat),
        made_by=known.made_by,
        key=token,
    )
