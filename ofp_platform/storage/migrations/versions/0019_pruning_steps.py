"""Pruning in steps: how far the present one has come."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the place, and an index by which old runs of identities are found without the others."""
    op.execute('ALTER TABLE ofp.projection ADD COLUMN pruning_type smallint, ADD COLUMN pruning_key text COLLATE "C"')
    op.execute("ALTER TABLE ofp.projection ADD COLUMN pruning_ts bigint")
    op.execute(
        "COMMENT ON COLUMN ofp.projection.pruning_type IS 'with pruning_key and pruning_ts: the last chunk that the pruning to"
        " pruned_to has looked at; null: it is done'"
    )
    op.execute("CREATE INDEX identity_run_age ON ofp.identity_run (projection_id, max_ts)")


def downgrade() -> None:
    """Drop both; what was not pruned yet goes with the next pruning."""
    op.execute("DROP INDEX ofp.identity_run_age")
    op.execute("ALTER TABLE ofp.projection DROP COLUMN pruning_type, DROP COLUMN pruning_key, DROP COLUMN pruning_ts")
