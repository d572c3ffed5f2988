"""Decisions of the plane itself: some have no vector, and whoever makes them keeps its place in the log."""

from alembic import op

revision = "0051"
down_revision = "0050"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them."""
    op.execute("ALTER TABLE ofp.decision_record ALTER COLUMN snapshot_hash DROP NOT NULL")
    op.execute("COMMENT ON COLUMN ofp.decision_record.snapshot_hash IS 'null: decided without a vector'")
    op.execute("""
        CREATE TABLE ofp.decider_place (
            pins_digest  text COLLATE "C" NOT NULL,
            stream_name  text COLLATE "C" NOT NULL,
            partition_id text COLLATE "C" NOT NULL,
            begin_place  text NOT NULL,
            place        text NOT NULL,
            PRIMARY KEY (pins_digest, stream_name, partition_id)
        )""")
    op.execute("COMMENT ON COLUMN ofp.decider_place.place IS 'the basis of the partition up to which every event is decided on'")
    op.execute("COMMENT ON COLUMN ofp.decider_place.begin_place IS 'where the run was begun'")
    op.execute("ALTER TABLE ofp.decider_place ENABLE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY runs_of_role ON ofp.decider_place USING (
            EXISTS (SELECT FROM ofp.database_role AS it WHERE it.role_name = current_user AND '*' = ANY (it.runs))
            OR pins_digest = ANY (ARRAY(
                SELECT unnest(it.runs) FROM ofp.database_role AS it WHERE it.role_name = current_user
            ))
        )""")


def downgrade() -> None:
    """Drop them. Decisions without a vector cannot stand in the former table: nobody takes them back."""
    op.execute("DROP TABLE ofp.decider_place")
    op.execute("ALTER TABLE ofp.decision_record ALTER COLUMN snapshot_hash SET NOT NULL")
