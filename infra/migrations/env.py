"""Runs the migrations as the owner, each in one transaction, one runner at a time.

The address comes from MILLRACE_POSTGRES_OWNER_DSN (`postgresql://user:pass@host:port/db`) or, in tests, from
`config.attributes["dsn"]`. Safe to repeat and to start twice: an advisory lock lets one runner in after the other,
and the second finds nothing left to do.
"""

import asyncio
import os

import asyncpg
from alembic import context
from sqlalchemy import Connection, pool
from sqlalchemy.ext.asyncio import create_async_engine

_LOCK = 0x6D696C6C  # "mill"


def _dsn() -> str:
    return str(context.config.attributes.get("dsn") or os.environ["MILLRACE_POSTGRES_OWNER_DSN"])


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


async def _migrate_online() -> None:
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(_dsn()), poolclass=pool.NullPool
    )
    guard = await asyncpg.connect(_dsn())
    try:
        await guard.execute("SELECT pg_advisory_lock($1)", _LOCK)
        async with engine.connect() as connection:
            await connection.run_sync(_migrate)
            await connection.commit()
    finally:
        await guard.close()
        await engine.dispose()


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    asyncio.run(_migrate_online())
