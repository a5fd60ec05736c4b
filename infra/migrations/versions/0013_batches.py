"""Batches: internal payments of one request, settled together or not at all."""

from infra.migrations.sql import execute_file

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0013_batches.sql")


def downgrade() -> None:
    raise RuntimeError("a batch that was settled cannot be taken back")
