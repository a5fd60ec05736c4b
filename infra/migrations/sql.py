"""Migrations are plain SQL files beside their version, run whole inside the migration's own transaction."""

from pathlib import Path

from alembic import context, op

_VERSIONS = Path(__file__).parent / "versions"


def execute_file(name: str) -> None:
    """Run every statement of a file in `versions/` in the running transaction; any error takes all of it back."""
    text = (_VERSIONS / name).read_text(encoding="utf-8")
    if context.is_offline_mode():
        op.execute(text)
        return
    connection = op.get_bind()
    connection.exec_driver_sql("SELECT 1")  # SQLAlchemy begins lazily: without this the file would commit by itself
    # A prepared statement takes one statement only; the driver's own execute takes the whole file.
    connection.connection.dbapi_connection.run_async(lambda raw: raw.execute(text))  # type: ignore[union-attr]
