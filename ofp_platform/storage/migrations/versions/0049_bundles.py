"""The steps of bundles: published, approved, put in force and taken back, each where control says it."""

from alembic import op

revision = "0049"
down_revision = "0048"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them."""
    op.execute("""
        CREATE TABLE ofp.bundle_event (
            pins_digest   text   COLLATE "C" NOT NULL,
            sequence      bigint NOT NULL CHECK (sequence >= 0),
            step          text   NOT NULL
                CHECK (step IN ('PUBLISHED', 'APPROVED', 'ACTIVATED', 'ROLLED_BACK', 'RETIRED')),
            bundle_name   text   COLLATE "C" NOT NULL,
            bundle_digest text   COLLATE "C" NOT NULL,
            scope_key     text   COLLATE "C" CHECK ((scope_key IS NOT NULL) = (step IN ('ACTIVATED', 'ROLLED_BACK'))),
            at            bigint NOT NULL,
            partition_id  text   COLLATE "C" NOT NULL,
            log_offset    bigint NOT NULL,
            position      text   NOT NULL,
            content       text   NOT NULL,
            PRIMARY KEY (pins_digest, sequence)
        )""")
    op.execute("COMMENT ON COLUMN ofp.bundle_event.at IS 'microseconds; never before that of the step before'")
    op.execute("COMMENT ON COLUMN ofp.bundle_event.log_offset IS 'where control says it, in the partition'")
    op.execute("CREATE INDEX bundle_event_by_scope ON ofp.bundle_event (pins_digest, scope_key, sequence)")
    op.execute("CREATE INDEX bundle_event_by_bundle ON ofp.bundle_event (pins_digest, bundle_name, bundle_digest, step)")
    # as in 0006 and 0028
    op.execute("""
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ofp.bundle_event
        FOR EACH STATEMENT EXECUTE FUNCTION ofp.refuse_change_of_record()""")
    op.execute("ALTER TABLE ofp.bundle_event ENABLE ALWAYS TRIGGER append_only")
    op.execute("ALTER TABLE ofp.bundle_event ENABLE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY runs_of_role ON ofp.bundle_event USING (
            EXISTS (SELECT FROM ofp.database_role AS it WHERE it.role_name = current_user AND '*' = ANY (it.runs))
            OR pins_digest = ANY (ARRAY(
                SELECT unnest(it.runs) FROM ofp.database_role AS it WHERE it.role_name = current_user
            ))
        )""")


def downgrade() -> None:
    """Drop them: what was in force is not known here then; control still says it."""
    op.execute("DROP TABLE ofp.bundle_event")
