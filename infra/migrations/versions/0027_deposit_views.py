"""Deposits among the transactions of a wallet."""

from infra.migrations.sql import execute_file

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0027_deposit_views.sql")


def downgrade() -> None:
    raise RuntimeError("0027 goes forward only")
