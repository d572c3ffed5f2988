"""Incarnations of a log: which history a position is of, and on which server the log was last known to be whole."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them; a log that is there is in its first incarnation, on this server."""
    # a promoted standby and a restored backup write another timeline, a database that was dumped has another system identifier
    op.execute("""
        CREATE FUNCTION ofp.log_timeline() RETURNS text LANGUAGE sql STABLE AS $$
            SELECT CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END
        $$""")
    op.execute("""
        CREATE FUNCTION ofp.log_server() RETURNS text LANGUAGE sql STABLE AS $$
            SELECT (SELECT system_identifier FROM pg_control_system())::text || ':' || ofp.log_timeline()
        $$""")
    op.execute("ALTER TABLE ofp.log_stream ADD COLUMN incarnation text, ADD COLUMN server text")
    op.execute("UPDATE ofp.log_stream SET server = ofp.log_server()")
    op.execute(
        "COMMENT ON COLUMN ofp.log_stream.server IS 'ofp.log_server() where the log is settled: on another one a recovery may"
        " have lost records, and nothing is appended until a new incarnation begins. Null: nowhere yet'"
    )
    op.execute("""
        CREATE TABLE ofp.log_incarnation (
            stream_name text        NOT NULL REFERENCES ofp.log_stream,
            number      integer     NOT NULL CHECK (number > 0),
            incarnation text        NOT NULL,
            starts      jsonb       NOT NULL,
            server      text        NOT NULL,
            reason      text        NOT NULL,
            began_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (stream_name, number)
        )""")
    op.execute("COMMENT ON COLUMN ofp.log_incarnation.starts IS 'partition id to the first offset of this incarnation'")


def downgrade() -> None:
    """Drop them; positions of later incarnations are read as those of the first."""
    op.execute("DROP TABLE ofp.log_incarnation")
    op.execute("ALTER TABLE ofp.log_stream DROP COLUMN incarnation, DROP COLUMN server")
    op.execute("DROP FUNCTION ofp.log_server(), ofp.log_timeline()")
