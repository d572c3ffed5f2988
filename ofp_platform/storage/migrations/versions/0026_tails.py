"""Tails: the newest events of a key in a row of their own."""

from alembic import op

revision = "0026"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add tails; a key gets one with its next event."""
    op.execute(
        """
        CREATE TABLE ofp.tail (
            projection_id bigint NOT NULL,
            key_type smallint NOT NULL,
            after_ts bigint NOT NULL,
            key_id text COLLATE "C" NOT NULL,
            last_ts bigint NOT NULL,
            block bytea NOT NULL,
            PRIMARY KEY (projection_id, key_type, key_id)
        ) WITH (fillfactor = 75, autovacuum_vacuum_scale_factor = 0.1)
        """
    )
    # what an update leaves as it was must stand at the end of the row, byte for byte: never compressed, never out of line
    op.execute("ALTER TABLE ofp.tail ALTER COLUMN block SET STORAGE PLAIN")
    op.execute(
        "COMMENT ON TABLE ofp.tail IS 'the newest events of a key, the newest first; its chunks are at or before after_ts'"
    )


def downgrade() -> None:
    """Drop tails that are empty; their events cannot be put into chunks here, so where there are some this refuses."""
    op.execute(
        """
        DO $$ BEGIN
            IF EXISTS (SELECT FROM ofp.tail WHERE octet_length(block) > 0) THEN
                RAISE EXCEPTION 'tails of keys hold events that the older form has no place for: rebuild the projections there';
            END IF;
        END $$
        """
    )
    op.execute("DROP TABLE ofp.tail")
