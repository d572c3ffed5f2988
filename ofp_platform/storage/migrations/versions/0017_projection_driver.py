"""Which projections a continuous driver was left with: one that died is told from one that was stopped, or never was."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table. A row stands from the start of a driver to its orderly end; the advisory lock says whether it lives."""
    op.execute("""
        CREATE TABLE ofp.projection_driver (
            projection_id bigint PRIMARY KEY REFERENCES ofp.projection ON DELETE CASCADE,
            started_at    timestamptz NOT NULL DEFAULT clock_timestamp()
        )""")


def downgrade() -> None:
    """Drop it."""
    op.execute("DROP TABLE ofp.projection_driver")
