"""The time of the newest amendment in a chunk or span: only from it on do the summaries hold."""

from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it. Nothing that is stored has amendments."""
    for table in ("chunk", "span"):
        op.execute(f"ALTER TABLE ofp.{table} ADD COLUMN amended_ts bigint")
        op.execute(
            f"COMMENT ON COLUMN ofp.{table}.amended_ts IS 'microseconds; null where no event of the key type can be amended'"
        )


def downgrade() -> None:
    """Drop it: state with amendments cannot be read by older code, which has no pack that declares any."""
    for table in ("chunk", "span"):
        op.execute(f"ALTER TABLE ofp.{table} DROP COLUMN amended_ts")
