"""Corrections and capital: proposed by one operator, approved by another, posted once."""

from infra.migrations.sql import execute_file

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0007_corrections.sql")


def downgrade() -> None:
    raise RuntimeError("what operators have entered by hand is not taken back; restore a backup instead")
