"""Limits: counters over rolling windows in the ledger, caps of API keys, prices, and accounts that can be closed."""

from infra.migrations.sql import execute_file

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0006_limits.sql")


def downgrade() -> None:
    raise RuntimeError("what was counted against limits is not taken back; restore a backup instead")
