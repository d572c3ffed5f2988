"""Buckets of keys that a large commit touched, so that not all of them have to be forgotten."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE ofp.commit_touched ADD COLUMN buckets bytea")
    op.execute("ALTER TABLE ofp.commit_touched ALTER COLUMN buckets SET STORAGE EXTERNAL")
    op.execute(
        "COMMENT ON COLUMN ofp.commit_touched.buckets IS 'instead of marks, one bit for each bucket of keys: set where a key of"
        " it was touched. Both null: any key may be among them'"
    )


def downgrade() -> None:
    """Drop it; serving processes then forget everything at a large commit."""
    op.execute("ALTER TABLE ofp.commit_touched DROP COLUMN buckets")
