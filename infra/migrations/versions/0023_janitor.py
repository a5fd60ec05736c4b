"""The janitor: what was accepted is kept until it is opened, and what waits for a workflow is found again."""

from infra.migrations.sql import execute_file

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0023_janitor.sql")


def downgrade() -> None:
    raise RuntimeError("what was accepted is not forgotten")
