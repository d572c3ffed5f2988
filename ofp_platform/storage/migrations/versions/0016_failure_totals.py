"""Counts of apply failures and anomalies beside their rows, and the rows of a range found without the others."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Count what there is; from now on the commits do. The index by reason served nothing but the count."""
    op.execute("""
        CREATE TABLE ofp.failure_total (
            projection_id bigint NOT NULL REFERENCES ofp.projection ON DELETE CASCADE,
            partial       boolean NOT NULL,
            reason        text NOT NULL,
            records       bigint NOT NULL,
            PRIMARY KEY (projection_id, partial, reason)
        ) WITH (fillfactor = 50)""")
    op.execute("COMMENT ON COLUMN ofp.failure_total.partial IS 'of records that some groups cannot use and others can'")
    op.execute("""
        INSERT INTO ofp.failure_total
        SELECT projection_id, partial, reason, count(*) FROM ofp.apply_failure GROUP BY projection_id, partial, reason""")
    op.execute("ALTER TABLE ofp.projection_partition ADD COLUMN anomalies bigint NOT NULL DEFAULT 0")
    op.execute("""
        UPDATE ofp.projection_partition AS part SET anomalies = counted.anomalies
        FROM (SELECT projection_id, partition_id, count(*) AS anomalies FROM ofp.anomaly GROUP BY 1, 2) AS counted
        WHERE (part.projection_id, part.partition_id) = (counted.projection_id, counted.partition_id)""")
    op.execute("DROP INDEX ofp.apply_failure_reason")
    for table in ("apply_failure", "anomaly"):
        op.execute(f"CREATE INDEX {table}_place ON ofp.{table} (projection_id, partition_id, (record_offset::numeric))")


def downgrade() -> None:
    """Count the rows again whenever somebody asks."""
    for table in ("apply_failure", "anomaly"):
        op.execute(f"DROP INDEX ofp.{table}_place")
    op.execute("CREATE INDEX apply_failure_reason ON ofp.apply_failure (projection_id, reason)")
    op.execute("ALTER TABLE ofp.projection_partition DROP COLUMN anomalies")
    op.execute("DROP TABLE ofp.failure_total")
