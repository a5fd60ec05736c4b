"""Operators: finer roles, the trail of what they did, and the rules they set."""

from infra.migrations.sql import execute_file

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0004_operators.sql")


def downgrade() -> None:
    raise RuntimeError("what operators have done is not taken back; restore a backup instead")
