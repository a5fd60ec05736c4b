"""Inbound: what each node can receive, and which invoices carry route hints."""

from infra.migrations.sql import execute_file

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0025_inbound.sql")


def downgrade() -> None:
    raise RuntimeError("the code asks for these columns; restore a backup instead")
