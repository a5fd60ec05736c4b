"""Makers: which key made a key, and so what falls with it."""

from infra.migrations.sql import execute_file

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0024_makers.sql")


def downgrade() -> None:
    raise RuntimeError("who made which key would be forgotten; restore a backup instead")
