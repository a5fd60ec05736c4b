"""The same books for less: what a posting costs, and counters that end."""

from infra.migrations.sql import execute_file

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0014_speed.sql")


def downgrade() -> None:
    raise RuntimeError("counters that were removed cannot be taken back")
