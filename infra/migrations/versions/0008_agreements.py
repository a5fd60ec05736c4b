"""Agreements: which channels a node had when it and the books last told the same."""

from infra.migrations.sql import execute_file

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0008_agreements.sql")


def downgrade() -> None:
    raise RuntimeError("what the books stood for is not forgotten; restore a backup instead")
