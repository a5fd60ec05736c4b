"""A repeated request gives the first answer.

    same key, same body       the same resource as it is now, or the same refusal, marked as a replay
    same key, other body      409 idempotency_conflict
    not accepted (4xx, 5xx)   the key stays unused; but a refusal (409) stays the answer of its key

The key's row is written in the transaction that makes the resource. Of two equal requests at the same moment, one makes
the resource; the other waits for the commit and finds it. A payment's key is claimed by its workflow instead; see
payment.py.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Generic, TypeVar

from api.http.codes import refused
from api.service.resources import Resources
from engine.bank.idempotency import Claim, KeyRecord, claim_keys_in_tx, find_key, refuse_key_in_tx
from engine.contracts.payment import Refusal
from engine.domain.errors import Conflict, EngineError, InvariantBroken, Refused
from engine.domain.ids import AccountId
from engine.ledger.database import Connection, transaction

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One request that must not be done twice: whose, under which key, and the hash of what it asks."""

    owner: AccountId
    key: str | None
    body_hash: bytes

    def claim(self, resource_id: str) -> Claim | None:
        """The key for what the request makes; None where there is no key."""
        if self.key is None:
            return None
        return Claim(account_id=self.owner, key=self.key, body_hash=self.body_hash, resource_id=resource_id)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What a request made, as it is now or by its id, and whether an earlier request with the same key had made it."""

    content: T
    is_replay: bool


@contextmanager
def replaying(*, is_replay: bool = True) -> Iterator[None]:
    """For the length of the block, an error is marked as one that was given before."""
    try:
        yield
    except EngineError as error:
        error.is_replay = error.is_replay or is_replay
        raise


def check_same(known_hash: bytes, body_hash: bytes) -> None:
    """Raises Conflict when the key belongs to another request."""
    if known_hash != body_hash:
        raise _used_otherwise()


def _used_otherwise() -> Conflict:
    return Conflict("This Idempotency-Key was used for another request; take a new one.")


async def find_replay(resources: Resources, intent: Intent) -> str | None:
    """The id of what an earlier request with this key made. Raises its refusal, or Conflict for another body."""
    if intent.key is None:
        return None
    async with resources.reading() as conn:
        known = await find_key(conn, intent.owner, intent.key)
    return None if known is None else replay(known, intent)


async def once(
    resources: Resources,
    intent: Intent,
    resource_id: str,
    make: Callable[[Connection], Awaitable[None]],
) -> Outcome[str]:
    """Make the resource and take the key, in one transaction; or find what the key's first request made. Gives its id.

    A refusal raised by `make` is recorded under the key and raised.
    """

    async def write() -> bool:
        claim = intent.claim(resource_id)
        async with transaction(resources.pool) as conn:
            if claim is not None and not (await claim_keys_in_tx(conn, [claim]))[0]:
                return False
            await make(conn)
        return True

    return await once_written(resources, intent, resource_id, write)


async def once_written(
    resources: Resources,
    intent: Intent,
    resource_id: str,
    write: Callable[[], Awaitable[bool]],
) -> Outcome[str]:
    """As `once`, where `write` takes the key itself in its transaction, and returns whether the key was free."""
    try:
        if await write():
            return Outcome(resource_id, is_replay=False)
    except (Refused, Conflict) as refusal:
        known = None if intent.key is None else await _record(resources, intent, intent.key, refusal)
        if known is None:
            raise
        return Outcome(replay(known, intent), is_replay=True)
    found = await find_replay(resources, intent)
    if found is None:  # it stands for a payment or a batch that is accepted and has not been opened
        raise _used_otherwise()
    return Outcome(found, is_replay=True)


async def _record(resources: Resources, intent: Intent, key: str, refusal: EngineError) -> KeyRecord | None:
    """Keep the refusal as the key's answer. Returns the answer that another request left meanwhile, if one did."""
    kept = asdict(Refusal(code=refusal.code, detail=refusal.detail, fields=refusal.fields))
    async with transaction(resources.pool) as conn:
        if await refuse_key_in_tx(conn, intent.owner, key, intent.body_hash, kept):
            return None
        return await find_key(conn, intent.owner, key)


def replay(known: KeyRecord, intent: Intent) -> str:
    """The id of what the key's first request made. Raises its refusal, or Conflict for another body."""
    check_same(known.body_hash, intent.body_hash)
    if known.refusal is not None:
        with replaying():
            raise as_error(known.refusal)
    if known.resource_id is None:
        raise InvariantBroken("an idempotency key has neither a resource nor a refusal")
    return known.resource_id


def as_error(refusal: object) -> EngineError:
    """The error that a refusal in the database stands for."""
    if not isinstance(refusal, dict):
        raise InvariantBroken("a recorded refusal is no object")
    fields = refusal.get("fields")
    return refused(str(refusal["code"]), str(refusal["detail"]), fields if isinstance(fields, dict) else {})
