"""The lag that a continuous driver sees: services read it here instead of asking a log that answers few questions a second."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns: records by partition, as the driver last saw them, and when that was."""
    op.execute("ALTER TABLE ofp.projection_driver ADD lag jsonb, ADD lag_seen_at timestamptz")


def downgrade() -> None:
    """Drop them."""
    op.execute("ALTER TABLE ofp.projection_driver DROP lag, DROP lag_seen_at")
