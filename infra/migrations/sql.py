"""Migrations are plain SQL files beside their version, run whole inside the migration's own transaction.

The current text of a function or trigger is its file in `engine/<schema>/sql`. A migration that changes one applies a
copy of that file, kept under the migration's number, because a released migration must do the same for ever:

    versions/0026/ledger/post.sql                   the copy of engine/ledger/sql/post.sql
    execute_file("0026/ledger/post.sql")            in upgrade(), after the tables that the function needs

`tests/integration/ledger/test_ledger_sql.py` compares a migrated database with the files (decision 0042).
"""

from pathlib import Path

from alembic import context, op

_VERSIONS = Path(__file__).parent / "versions"


def execute_file(name: str) -> None:
    """Run every statement of a file in `versions/` in the running transaction; any error rolls all of it back."""
    text = (_VERSIONS / name).read_text(encoding="utf-8")
    if context.is_offline_mode():
        op.execute(text)
        return
    connection = op.get_bind()
    connection.exec_driver_sql("SELECT 1")  # SQLAlchemy begins lazily: without this the file would commit by itself
    # A prepared statement takes one statement only; the driver's own execute takes the whole file.
    connection.connection.dbapi_connection.run_async(lambda raw: raw.execute(text))  # type: ignore[union-attr]
