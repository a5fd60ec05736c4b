"""Group commit: many transfers in one call, one verdict each."""

from infra.migrations.sql import execute_file

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0010_post_batch.sql")


def downgrade() -> None:
    raise RuntimeError("functions are replaced by a later migration, not taken back")
