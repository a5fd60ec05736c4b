"""Withdraw links: who has the link may take its amount, as often as it says."""

from infra.migrations.sql import execute_file

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0011_withdraw_links.sql")


def downgrade() -> None:
    raise RuntimeError("what was promised and claimed is not forgotten; restore a backup instead")
