"""The ends of offset ranges in logs whose offsets are not dense."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the ledger. A row says where a range of `range_size` records ends; the end of the one before is its start."""
    op.execute("""
        CREATE TABLE ofp.range_end (
            stream_name  text    NOT NULL,
            partition_id text    NOT NULL,
            range_size   integer NOT NULL CHECK (range_size > 0),
            range_number integer NOT NULL CHECK (range_number >= 0),
            end_offset   text    NOT NULL,
            records      integer NOT NULL CHECK (records BETWEEN 1 AND range_size),
            PRIMARY KEY (stream_name, partition_id, range_size, range_number)
        )""")
    op.execute("COMMENT ON COLUMN ofp.range_end.records IS 'fewer than range_size only in the last range of a closed partition'")


def downgrade() -> None:
    """Drop the ledger; it is made again from the log."""
    op.execute("DROP TABLE ofp.range_end")
