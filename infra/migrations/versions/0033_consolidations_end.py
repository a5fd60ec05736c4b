"""A consolidation that no block can take any more may end after it was booked."""

from infra.migrations.sql import execute_file

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0033_consolidations_end.sql")


def downgrade() -> None:
    raise RuntimeError("consolidations that have ended so would break the old rule; restore a backup instead")
