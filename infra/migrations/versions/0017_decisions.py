"""Decisions: how two operators end a payment whose node cannot tell its end."""

from infra.migrations.sql import execute_file

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0017_decisions.sql")


def downgrade() -> None:
    raise RuntimeError("what operators have decided is not taken back; restore a backup instead")
