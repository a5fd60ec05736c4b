"""The bank: accounts, wallets, keys, payments, invoices, nodes, and what a wallet's owner sees of them."""

from infra.migrations.sql import execute_file

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0002_bank.sql")


def downgrade() -> None:
    raise RuntimeError("who our users are is not taken back; restore a backup instead")
