"""Payments without an invoice, and what a payee outside has to say after he was paid."""

from infra.migrations.sql import execute_file

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0016_keysends.sql")


def downgrade() -> None:
    raise RuntimeError("a payment that was made without an invoice has none")
