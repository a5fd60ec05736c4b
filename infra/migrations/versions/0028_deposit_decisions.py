"""Decisions about deposits: what two operators decide where no rule can."""

from infra.migrations.sql import execute_file

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0028_deposit_decisions.sql")


def downgrade() -> None:
    raise RuntimeError("what operators have decided is not taken back; restore a backup instead")
