"""Refused sends, and channels as they were last seen."""

from infra.migrations.sql import execute_file

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0022_refused_sends.sql")


def downgrade() -> None:
    raise RuntimeError("what was seen of channels cannot be had again; restore a backup instead")
