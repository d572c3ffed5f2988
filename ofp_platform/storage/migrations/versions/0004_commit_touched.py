"""Which keys each of the last commits of a projection touched: what a serving process must forget to follow it."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table. The projector keeps only the newest versions in it."""
    op.execute("""
        CREATE TABLE ofp.commit_touched (
            projection_id bigint NOT NULL REFERENCES ofp.projection ON DELETE CASCADE,
            version       bigint NOT NULL,
            marks         bytea,
            PRIMARY KEY (projection_id, version)
        )""")
    op.execute("ALTER TABLE ofp.commit_touched ALTER COLUMN marks SET STORAGE EXTERNAL")
    op.execute(
        "COMMENT ON COLUMN ofp.commit_touched.marks IS 'int64 marks of the touched keys, 8 bytes each; null: any key may be among"
        " them'"
    )


def downgrade() -> None:
    """Drop it; serving processes then forget everything at each commit that they see."""
    op.execute("DROP TABLE ofp.commit_touched")
