"""Evidence about the partitions of a log whose broker does not tell what it trimmed, and decisions of operators."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the evidence. Times are microseconds of the broker's clock, but for when an operator decided."""
    op.execute("""
        CREATE TABLE ofp.log_head_sighting (
            stream_name  text   NOT NULL,
            partition_id text   NOT NULL,
            position     text   NOT NULL,
            arrived_at   bigint,
            seen_at      bigint NOT NULL,
            PRIMARY KEY (stream_name, partition_id)
        )""")
    op.execute("""
        CREATE TABLE ofp.log_following_record (
            stream_name  text NOT NULL,
            partition_id text NOT NULL,
            after        text NOT NULL,
            position     text NOT NULL,
            PRIMARY KEY (stream_name, partition_id, after)
        )""")
    op.execute("""
        CREATE TABLE ofp.log_accepted_gap (
            stream_name  text        NOT NULL,
            partition_id text        NOT NULL,
            position     text        NOT NULL,
            reason       text        NOT NULL CHECK (reason <> ''),
            decided_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (stream_name, partition_id, decided_at)
        )""")


def downgrade() -> None:
    """Drop the evidence."""
    for table in ("log_accepted_gap", "log_following_record", "log_head_sighting"):
        op.execute(f"DROP TABLE ofp.{table}")
