"""Turns: whoever opens a payment has its hash for himself, and an attempt is one payment's."""

from infra.migrations.sql import execute_file

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0020_turns.sql")


def downgrade() -> None:
    raise RuntimeError("the code takes these turns; restore a backup instead")
