"""The ledger: accounts, transfers, entries, balances, holds, limits, and the functions that alone write them."""

from infra.migrations.sql import execute_file

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0001_ledger_tables.sql")
    execute_file("0001_ledger_functions.sql")


def downgrade() -> None:
    raise RuntimeError("the books are not taken back; restore a backup instead")
