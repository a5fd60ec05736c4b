"""Reconciliation: its runs, and the cases that it opens for operators."""

from infra.migrations.sql import execute_file

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0003_reconciliation.sql")


def downgrade() -> None:
    raise RuntimeError("what operators have decided is not taken back; restore a backup instead")
