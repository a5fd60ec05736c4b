"""Withdrawals among the transactions of a wallet."""

from infra.migrations.sql import execute_file

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0031_withdrawal_views.sql")


def downgrade() -> None:
    raise RuntimeError("0031 goes forward only")
