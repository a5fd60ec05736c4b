"""Never tried: sightings of payments without any attempt."""

from infra.migrations.sql import execute_file

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute_file("0020_never_tried.sql")


def downgrade() -> None:
    raise RuntimeError("sightings without a time lock may be there; restore a backup instead")
