"""The audit trail of what operators did: one line per action, in the transaction of the action. Append-only.

Numbers have no gaps and follow the order of the commits. Times never go back. Details name the request and the earlier
state. Never put a secret there (keys, macaroons, preimages): every operator may read them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.domain.ids import AccountId
from engine.ledger.database import Connection, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What an operator did. `action` is `<thing>.<verb>`, such as `account.lock`."""

    operator: str
    key_id: str
    action: str
    account_id: AccountId | None = None
    """The user's account that the action is about."""
    subject: str | None = None
    """The other thing that the action is about: a case, a correction, a key."""
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])


async def find_proposer_key(conn: Connection, subject: str) -> str | None:
    """The key with which a correction, capital or a forced end was proposed."""
    with translated():
        key_id: str | None = await conn.fetchval(
            "SELECT key_id FROM bank.audit WHERE subject = $1 AND action LIKE '%.propose' ORDER BY id LIMIT 1", subject
        )
    return key_id


async def record_in_tx(conn: Connection, act: Act) -> None:
    """Write the line. Call this last in the transaction: the trail is locked until the transaction ends."""
    with translated():
        await conn.execute(
            "SELECT bank.record_act($1, $2, $3, $4, $5, $6)",
            act.operator,
            act.key_id,
            act.action,
            act.account_id,
            act.subject,
            dict(act.detail),
        )
