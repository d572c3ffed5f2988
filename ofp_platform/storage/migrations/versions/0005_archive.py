"""Positions at which the log and its archive have different records."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the anomaly record. An empty hash: that side has no readable record at the position."""
    op.execute("""
        CREATE TABLE ofp.archive_conflict (
            stream_name          text        NOT NULL,
            partition_id         text        NOT NULL,
            position             text        NOT NULL,
            log_payload_hash     bytea       NOT NULL CHECK (length(log_payload_hash) IN (0, 32)),
            archive_payload_hash bytea       NOT NULL CHECK (length(archive_payload_hash) IN (0, 32)),
            segment_path         text        NOT NULL,
            recorded_at          timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (stream_name, partition_id, position, log_payload_hash, archive_payload_hash, segment_path)
        )""")
    op.execute("COMMENT ON COLUMN ofp.archive_conflict.recorded_at IS 'when it was first seen; no value depends on it'")


def downgrade() -> None:
    """Drop the record."""
    op.execute("DROP TABLE ofp.archive_conflict")
