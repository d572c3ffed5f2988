"""The table log: streams, the head of each partition, record-batch blocks.

Offsets are dense per partition. A block holds the records [first_offset, first_offset + record_count) in columns,
encoded and compressed by the appender (see ofp_platform/log/block.py), so one row is one read of up to 2,000 records.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the log."""
    op.execute("""
        CREATE TABLE ofp.log_stream (
            stream_name     text    PRIMARY KEY,
            partition_count integer NOT NULL CHECK (partition_count BETWEEN 1 AND 10000),
            partition_key   text    NOT NULL
        )""")
    op.execute("""
        CREATE TABLE ofp.log_head (
            stream_name  text   NOT NULL REFERENCES ofp.log_stream,
            partition_id text   NOT NULL,
            next_offset  bigint NOT NULL DEFAULT 0,
            floor_offset bigint NOT NULL DEFAULT 0,
            PRIMARY KEY (stream_name, partition_id),
            CHECK (0 <= floor_offset AND floor_offset <= next_offset)
        ) WITH (fillfactor = 50)""")
    op.execute("""
        CREATE TABLE ofp.log_block (
            stream_name    text     NOT NULL,
            partition_id   text     NOT NULL,
            first_offset   bigint   NOT NULL CHECK (first_offset >= 0),
            record_count   integer  NOT NULL CHECK (record_count > 0),
            first_admitted bigint   NOT NULL,
            last_admitted  bigint   NOT NULL,
            codec          smallint NOT NULL,
            raw_bytes      integer  NOT NULL,
            block          bytea    NOT NULL,
            PRIMARY KEY (stream_name, partition_id, first_offset),
            FOREIGN KEY (stream_name, partition_id) REFERENCES ofp.log_head
        )""")
    # the block is compressed already: TOAST must move it out of line, not try again
    op.execute("ALTER TABLE ofp.log_block ALTER COLUMN block SET STORAGE EXTERNAL")
    op.execute("COMMENT ON COLUMN ofp.log_block.first_admitted IS 'least admitted_at in the block, microseconds'")
    op.execute("COMMENT ON COLUMN ofp.log_block.last_admitted IS 'greatest admitted_at in the block, microseconds'")


def downgrade() -> None:
    """Drop the log and everything in it."""
    op.execute("DROP TABLE ofp.log_block, ofp.log_head, ofp.log_stream")
