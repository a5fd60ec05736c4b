"""Withdrawals, the payouts that pay them, and the coins that these reserve."""

from infra.migrations.sql import execute_file

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0030/ledger/lock_balances.sql")
    execute_file("0030_withdrawals.sql")


def downgrade() -> None:
    raise RuntimeError("withdrawals would be lost; restore a backup instead")
