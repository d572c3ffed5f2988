"""Spans in levels: those of level 2 are over spans of level 1."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Give every span its level; those that are there are over chunks."""
    op.execute("ALTER TABLE ofp.span ADD COLUMN level smallint NOT NULL DEFAULT 1")
    op.execute("ALTER TABLE ofp.span ALTER COLUMN level DROP DEFAULT")
    op.execute("ALTER TABLE ofp.span DROP CONSTRAINT span_pkey")
    op.execute("ALTER TABLE ofp.span ADD PRIMARY KEY (projection_id, key_type, key_id, level, first_ts)")


def downgrade() -> None:
    """Keep the spans over chunks."""
    op.execute("DELETE FROM ofp.span WHERE level > 1")
    op.execute("ALTER TABLE ofp.span DROP COLUMN level")
    op.execute("ALTER TABLE ofp.span ADD PRIMARY KEY (projection_id, key_type, key_id, first_ts)")
