"""API keys: made, found by their token, revoked with the keys that come from them.

An API key is `mr_<id>_<secret>` and is shown once. The secret has 256 random bits, and only its SHA-256 is stored. Such
a strong secret needs no slow hash. Nothing about a key is cached, so a revocation is in force from its commit on.

Each key knows the key that made it. When a key is revoked, the keys that come from it are revoked too. Its roles count
only while every account that it comes from is active. Keys that come from one account belong to one person
(`sql/key_line.sql`, decision 0036).
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from engine.domain.ids import AccountId, ApiKeyId
from engine.domain.limit import Window
from engine.domain.money import Sat
from engine.ledger.database import Connection, Reader, change_rows, translated

_TOKEN = re.compile(r"mr_([0-9a-z]{25})_([0-9A-Za-z_-]{43})")
_ID_PREFIX = "key_"
_KEY = "id, account_id, name, scopes, created_at, expires_at, revoked_at, spend_limit_sat, made_by"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key without its secret."""

    id: ApiKeyId
    account_id: AccountId
    name: str
    scopes: Sequence[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    spend_limit_sat: Mapping[Window, Sat] | None
    made_by: ApiKeyId | None
    """None: the bootstrap key, or not known."""
    has_powers: bool = True
    """Whether its roles count. Read only when a key is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a key may do at this moment. Its row is locked, so nobody revokes it meanwhile."""

    has_powers: bool
    generation: int
    """1 for a key that comes from no other, and one more for each key in its line."""


def new_secret() -> str:
    """256 random bits, in 43 characters."""
    return secrets.token_urlsafe(32)


def token(key_id: ApiKeyId, secret: str) -> str:
    """The whole key, which is shown once."""
    return f"mr_{key_id.removeprefix(_ID_PREFIX)}_{secret}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApiKey:
    """A key before it is stored."""

    id: ApiKeyId
    account_id: AccountId
    name: str
    scopes: Sequence[str]
    secret: str
    expires_at: datetime | None
    spend_limit_sat: Mapping[Window, Sat] | None
    made_by: ApiKeyId | None


async def add_api_key_in_tx(conn: Connection, new: NewApiKey) -> None:
    """Store a key: whoever has its secret acts for the account, within the spend limit per window.

    Call `lock_key_in_tx` for its maker first: a revoked key makes no keys.
    """
    with translated():
        await conn.execute(
            """INSERT INTO bank.api_keys(id, account_id, name, scopes, secret_hash, expires_at, spend_limit_sat,
                   made_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)""",
            new.id,
            new.account_id,
            new.name,
            list(new.scopes),
            _hash(new.secret),
            new.expires_at,
            None if new.spend_limit_sat is None else dict(new.spend_limit_sat),
            new.made_by,
        )


async def find_api_keys_by_token(conn: Reader, texts: Sequence[str]) -> list[ApiKey | None]:
    """The key of each of these texts, in their order; None for a key that is unknown, revoked or expired.

    `has_powers` is looked up only for keys with a role. Users' keys, which are nearly all, cost nothing more.
    """
    matches = [_TOKEN.fullmatch(text) for text in texts]
    ids = {_ID_PREFIX + match[1] for match in matches if match is not None}
    if not ids:
        return [None] * len(texts)
    with translated():
        rows = await conn.fetch(
            f"""SELECT {_KEY}, secret_hash,
                       scopes <@ '{{read,receive,send}}' OR bank.key_has_powers(id) AS has_powers
                  FROM bank.api_keys
                 WHERE id = ANY($1) AND revoked_at IS NULL
                   AND (expires_at IS NULL OR expires_at > clock_timestamp())""",  # noqa: S608 - constant
            list(ids),
        )
    good = {row["id"]: row for row in rows}
    return [None if match is None else _opened_by(match[2], good.get(_ID_PREFIX + match[1])) for match in matches]


def _opened_by(secret: str, row: asyncpg.Record | None) -> ApiKey | None:
    if row is None or not hmac.compare_digest(row["secret_hash"], _hash(secret)):
        return None
    known = dict(row)
    del known["secret_hash"]
    return ApiKey(**known)


async def find_api_key(conn: Reader, account_id: AccountId, key_id: ApiKeyId) -> ApiKey | None:
    """A key of this account, revoked or not."""
    with translated():
        row = await conn.fetchrow(
            f"SELECT {_KEY} FROM bank.api_keys WHERE id = $1 AND account_id = $2",  # noqa: S608 - constant
            key_id,
            account_id,
        )
    return None if row is None else ApiKey(**row)


async def lock_key_in_tx(conn: Connection, key_id: ApiKeyId) -> Standing | None:
    """What the key may do; nobody revokes it until the transaction ends. None: it is revoked or has expired."""
    with translated():
        found = await conn.fetchval(
            """SELECT id FROM bank.api_keys WHERE id = $1 AND revoked_at IS NULL
                  AND (expires_at IS NULL OR expires_at > clock_timestamp()) FOR SHARE""",
            key_id,
        )
        if found is None:
            return None
        row = await conn.fetchrow(  # a second statement, to see what was committed while the first one waited
            """SELECT bank.key_has_powers($1) AS has_powers, max(generation) AS generation FROM bank.key_line($1)""",
            key_id,
        )
    return None if row is None else Standing(**row)


async def revoke_api_key_in_tx(
    conn: Connection, key_id: ApiKeyId, *, keep_made: bool = False
) -> dict[ApiKeyId, AccountId]:
    """Revoke the key and, unless `keep_made`, the keys that come from it. In force from the commit on.

    Returns the keys that were still valid, with their accounts; none for a repeat. A maker of a key holds the row of
    his own key: this call waits for him and finds the key that he made.
    """
    revoked: dict[ApiKeyId, AccountId] = {}
    generation = [key_id]
    while generation:
        with translated():
            rows = await conn.fetch(
                """SELECT id, account_id FROM bank.api_keys WHERE id = ANY($1) AND revoked_at IS NULL
                    ORDER BY id FOR NO KEY UPDATE""",
                generation,
            )
            new = {ApiKeyId(row["id"]): AccountId(row["account_id"]) for row in rows}
            await change_rows(
                conn,
                len(new),
                "UPDATE bank.api_keys SET revoked_at = clock_timestamp() WHERE id = ANY($1) AND revoked_at IS NULL",
                list(new),
            )
            revoked |= new
            made = await conn.fetch("SELECT id FROM bank.api_keys WHERE made_by = ANY($1) ORDER BY id", generation)
        generation = [] if keep_made else [ApiKeyId(row["id"]) for row in made]
    return revoked


async def comes_from_account(conn: Connection, key_id: ApiKeyId, account_id: AccountId) -> bool:
    """Whether the key, or one that it comes from, belongs to this account."""
    with translated():
        found: bool = await conn.fetchval(
            "SELECT EXISTS (SELECT FROM bank.key_line($1) WHERE account_id = $2)", key_id, account_id
        )
    return found


async def are_of_one_person(conn: Connection, key_id: ApiKeyId, other_id: ApiKeyId) -> bool:
    """Whether both keys belong to one account or come from keys of one. The bootstrap key belongs to nobody."""
    with translated():
        found: bool = await conn.fetchval("SELECT bank.are_of_one_person($1, $2)", key_id, other_id)
    return found


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
