"""What boards a lane is remembered with its request, so that another one with the same key is a conflict at once."""

from infra.migrations.sql import execute_file

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0015_boarded_requests.sql")


def downgrade() -> None:
    raise RuntimeError("what was accepted is not forgotten")
