"""Begun sends: what a node has said that it has is never sent again."""

from infra.migrations.sql import execute_file

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0018_begun_sends.sql")


def downgrade() -> None:
    raise RuntimeError("what nodes have begun is not forgotten; restore a backup instead")
