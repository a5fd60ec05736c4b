"""Payments in flight: what each waits for, and the proof by which a lost attempt is released."""

from infra.migrations.sql import execute_file

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0012_in_flight.sql")


def downgrade() -> None:
    raise RuntimeError("what was seen of payments is not taken back; restore a backup instead")
