"""Rules that operators set: fees, limits and depths of deposits, in numbered versions that are kept for ever.

The highest version is in force from its commit on, for every process. A posting stores the version it was made under,
so what was charged years ago can be computed again.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import asyncpg

from engine.domain.errors import Conflict, InvariantBroken
from engine.ledger.database import Connection, Reader, translated

Name = Literal["fees", "limits", "deposits", "withdrawals"]

_COLUMNS = "name, version, content, note, set_by, created_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edition:
    """One version of a rulebook, as it was set."""

    name: Name
    version: int
    content: dict[str, Any]
    note: str
    set_by: str
    created_at: datetime


async def read_current(conn: Reader, name: Name) -> Edition:
    """The version in force."""
    with translated():
        row = await conn.fetchrow(
            f"SELECT {_COLUMNS} FROM bank.rulebooks WHERE name = $1 ORDER BY version DESC LIMIT 1",  # noqa: S608 - constant
            name,
        )
    if row is None:
        raise InvariantBroken(f"there is no rulebook {name}")
    return Edition(**row)


async def find_edition(conn: Reader, name: Name, version: int) -> Edition | None:
    """One version; it never changes."""
    with translated():
        row = await conn.fetchrow(
            f"SELECT {_COLUMNS} FROM bank.rulebooks WHERE name = $1 AND version = $2",  # noqa: S608 - constant
            name,
            version,
        )
    return None if row is None else Edition(**row)


async def set_in_tx(
    conn: Connection, name: Name, content: dict[str, Any], *, version: int, note: str, set_by: str
) -> None:
    """Put checked content in force as this version, which must be the next one. Raises Conflict when it is taken."""
    with translated():
        try:
            written = await conn.fetchval(
                """INSERT INTO bank.rulebooks(name, version, content, note, set_by)
                   SELECT $1, $2, $3, $4, $5
                    WHERE $2 = (SELECT max(version) + 1 FROM bank.rulebooks WHERE name = $1) RETURNING version""",
                name,
                version,
                content,
                note,
                set_by,
            )
        except asyncpg.UniqueViolationError as error:
            raise _changed_meanwhile(name) from error
    if written is None:
        raise _changed_meanwhile(name)


def _changed_meanwhile(name: Name) -> Conflict:
    return Conflict(f"Somebody has set the {name} meanwhile; look at them and try again.", code="version_conflict")
