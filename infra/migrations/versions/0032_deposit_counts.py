"""Deposits remember what they count towards limits."""

from infra.migrations.sql import execute_file

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0032_deposit_counts.sql")


def downgrade() -> None:
    raise RuntimeError("what deposits have counted would be lost; restore a backup instead")
