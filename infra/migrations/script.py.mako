"""${message}"""

from infra.migrations.sql import execute_file

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("${up_revision}_${message.lower().replace(" ", "_")}.sql")


def downgrade() -> None:
    raise RuntimeError("the books are not taken back; restore a backup instead")
