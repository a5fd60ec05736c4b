"""Growth: closings of the books, an index by time, lists that read what they show."""

from infra.migrations.sql import execute_file

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0009_growth.sql")


def downgrade() -> None:
    raise RuntimeError("closings are append-only like the books they sum up; restore a backup instead")
