"""Fees: what we charge for each payment and receipt, and under which version of the schedule."""

from infra.migrations.sql import execute_file

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0005_fees.sql")


def downgrade() -> None:
    raise RuntimeError("what users were charged is not taken back; restore a backup instead")
