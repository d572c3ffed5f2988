"""Apply failures of some groups; state that was folded under other rules is folded again from the beginning."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns. Every projection begins again: the masks of stored events did not tell whether an event has all that the
    group of a predicate needs."""
    op.execute("ALTER TABLE ofp.apply_failure ADD COLUMN groups text NOT NULL DEFAULT ''")
    op.execute("ALTER TABLE ofp.apply_failure ADD COLUMN partial boolean NOT NULL DEFAULT false")
    op.execute(
        "COMMENT ON COLUMN ofp.apply_failure.groups IS 'the group versions that are not fed, with commas; empty: all of them'"
    )
    op.execute("COMMENT ON COLUMN ofp.apply_failure.partial IS 'whether other groups are fed'")
    op.execute("ALTER TABLE ofp.projection_partition ADD COLUMN partial bigint NOT NULL DEFAULT 0")
    _begin_again()


def downgrade() -> None:
    """Drop the columns; every projection begins again."""
    op.execute("ALTER TABLE ofp.projection_partition DROP COLUMN partial")
    op.execute("ALTER TABLE ofp.apply_failure DROP COLUMN groups, DROP COLUMN partial")
    _begin_again()


def _begin_again() -> None:
    for table in ("chunk", "span", "identity_run", "apply_failure", "anomaly", "projection_partition", "commit_touched"):
        op.execute(f"DELETE FROM ofp.{table}")
    op.execute(
        "UPDATE ofp.projection SET version = version + 1, watermark = NULL, pruned_to = NULL,"
        " basis = '{\"partitions\":[],\"stream_name\":' || to_json(stream_name)::text || '}'"
    )
