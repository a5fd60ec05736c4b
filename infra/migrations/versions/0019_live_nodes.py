"""Live nodes: when a node counts as away, in one place."""

from infra.migrations.sql import execute_file

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0019_live_nodes.sql")


def downgrade() -> None:
    raise RuntimeError("the code asks this function; restore a backup instead")
