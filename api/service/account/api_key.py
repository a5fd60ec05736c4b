"""API keys of an account: make, list, revoke.

An administrator makes keys with any scopes. A key of the account makes keys that may do no more than itself: a subset
of its scopes, expiring no later. The same rule says which keys it may revoke: those that allow nothing that it does not
allow itself. A key with a spend limit makes no key that spends, because the payments of that key would have to count as
its own. Of the keys that spend it revokes only itself.

Each key knows which key made it, and is revoked with it. So when a key is in the wrong hands, revoking it is enough. An
administrator who only exchanges his own key may keep the keys that it made.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from api.http.codes import Forbidden
from api.service.account.api_key_shape import KeyOrder, KeyOut, NewKeyOut
from api.service.auth import Caller, still_may_in_tx
from api.service.idempotency import Intent, Outcome, find_replay, once
from api.service.resources import Resources
from engine.bank.account.account import find_account
from engine.bank.account.api_key import (
    NewApiKey,
    add_api_key_in_tx,
    find_api_key,
    new_secret,
    revoke_api_key_in_tx,
    token,
)
from engine.bank.audit import record_in_tx
from engine.domain.errors import Invalid, InvariantBroken, no_such
from engine.domain.ids import AccountId, ApiKeyId, new_id
from engine.domain.page import START, Position, Slice
from engine.ledger.database import Connection, transaction
from engine.views.account import API_KEYS

_MOST_GENERATIONS = 16
"""The longest line of keys, each made by the one before."""
_MOST_NAMED = 100
"""The most keys that one line of the audit trail names when they are revoked with another; all are counted."""


async def make_api_key(
    resources: Resources, caller: Caller, account_id: str, order: KeyOrder, *, key: str | None, body_hash: bytes
) -> Outcome[NewKeyOut]:
    """Make the key; only the first answer has its secret. Raises NotFound, Invalid, Forbidden."""
    account = await _account_of_keys(caller, resources, account_id)
    intent = Intent(owner=caller.owner, key=key, body_hash=body_hash)
    known = await find_replay(resources, intent)
    if known is not None:
        return Outcome(await _read(resources, account, ApiKeyId(known), None), is_replay=True)
    scopes = sorted(set(order.scopes))
    _check_hands_on(caller, scopes)
    _check_spending(caller, scopes)
    _check_expiry(caller, order.expires_at)
    key_id, secret = ApiKeyId(new_id("key")), new_secret()

    async def make(conn: Connection) -> None:
        maker = await still_may_in_tx(conn, caller)
        if maker is not None and maker.generation >= _MOST_GENERATIONS:
            raise Forbidden(f"This key comes from {_MOST_GENERATIONS - 1} others in a row and cannot make another.")
        new = NewApiKey(
            id=key_id,
            account_id=account,
            name=order.name,
            scopes=scopes,
            secret=secret,
            expires_at=order.expires_at,
            spend_limit_sat=order.spend_limit_sat,
            made_by=ApiKeyId(caller.key_id) if maker else None,
        )
        await add_api_key_in_tx(conn, new)
        if caller.is_operator:
            facts: dict[str, object] = {"name": order.name, "scopes": scopes, "expires_at": order.expires_at}
            if order.spend_limit_sat is not None:
                facts["spend_limit_sat"] = order.spend_limit_sat
            await record_in_tx(conn, caller.act("key.make", account_id=account, subject=key_id, **facts))

    made = await once(resources, intent, key_id, make)
    shown = None if made.is_replay else token(key_id, secret)
    return Outcome(await _read(resources, account, ApiKeyId(made.content), shown), is_replay=made.is_replay)


async def list_api_keys(
    resources: Resources, caller: Caller, account_id: str, *, after: Position = START, limit: int
) -> Slice[KeyOut]:
    """One page of the account's keys, newest first, revoked ones too. Raises NotFound, Forbidden."""
    account = await _account_of_keys(caller, resources, account_id)
    if not {"admin", "read"} & caller.scopes:
        raise Forbidden("This needs a key with the scope 'read'.", scope="read")
    async with resources.reading() as conn:
        found = await API_KEYS.read(conn, after, limit, account)
    return found.map(lambda row: KeyOut(**row))


async def revoke_api_key(
    resources: Resources, caller: Caller, account_id: str, key_id: str, *, keep_made: bool = False
) -> KeyOut:
    """Revoke the key and all keys that come from it, on any account. A repeat gives the same answer.

    With `keep_made` the keys that it made stay valid, which only an administrator may ask for. Raises NotFound,
    Forbidden.
    """
    account = await _account_of_keys(caller, resources, account_id)
    known = await find_api_key(resources.pool, account, ApiKeyId(key_id))
    if known is None:
        raise no_such("API key")
    _check_hands_on(caller, known.scopes)
    if known.id != caller.key_id:
        _check_spending(caller, known.scopes)
    if keep_made and not caller.is_admin:
        raise Forbidden("Only an administrator may revoke a key and keep the keys that it made.", scope="admin")
    async with transaction(resources.pool) as conn:
        await still_may_in_tx(conn, caller)
        revoked = await revoke_api_key_in_tx(conn, known.id, keep_made=keep_made)
        if revoked and caller.is_operator:
            taken = {key: of for key, of in revoked.items() if key != known.id}
            facts = {"taken": dict(list(taken.items())[:_MOST_NAMED]), "count": len(taken), "kept": keep_made}
            await record_in_tx(conn, caller.act("key.revoke", account_id=account, subject=known.id, **facts))
    return await _read(resources, account, known.id, None)


async def _account_of_keys(caller: Caller, resources: Resources, account_id: str) -> AccountId:
    """The account whose keys are meant. Raises NotFound where the caller may not know that it exists."""
    if not caller.is_admin and caller.account != account_id:
        raise no_such("account")
    if await find_account(resources.pool, AccountId(account_id)) is None:
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


async def _read(resources: Resources, account_id: AccountId, key_id: ApiKeyId, token: str | None) -> NewKeyOut:
    known = await find_api_key(resources.pool, account_id, key_id)
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
