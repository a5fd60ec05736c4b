"""Coins: every transaction that spends one."""

from infra.migrations.sql import execute_file

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0029_coins.sql")


def downgrade() -> None:
    raise RuntimeError("the provenance of coins would be lost; restore a backup instead")
