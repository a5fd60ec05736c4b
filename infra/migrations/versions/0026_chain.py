"""The chain: the hot wallet, its addresses and coins, and deposits."""

from infra.migrations.sql import execute_file

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0026_chain.sql")
    execute_file("0026/ledger/resolve_reversed.sql")


def downgrade() -> None:
    raise RuntimeError("deposits would be lost; restore a backup instead")
