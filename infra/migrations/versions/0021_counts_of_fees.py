"""Limits count all that may leave with a payment; a settlement gives back what did not leave."""

from infra.migrations.sql import execute_file

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0021_counts_of_fees.sql")


def downgrade() -> None:
    raise RuntimeError("what settlements have given back would be missing in the counters of the version before")
