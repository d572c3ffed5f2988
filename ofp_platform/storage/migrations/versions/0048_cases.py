"""Cases: one append-only timeline for each, and entries that came again with other content."""

from alembic import op

revision = "0048"
down_revision = "0047"
branch_labels = None
depends_on = None

TABLES = ("case_entry", "case_entry_conflict")


def upgrade() -> None:
    """Add them, and the index by which decisions are found that a person has to look at."""
    op.execute("""
        CREATE TABLE ofp.case_entry (
            pins_digest text     COLLATE "C" NOT NULL,
            sequence    bigint   NOT NULL,
            case_id     text     COLLATE "C" NOT NULL,
            event_class text     COLLATE "C" NOT NULL,
            event_id    text     COLLATE "C" NOT NULL,
            entry_type  text     NOT NULL,
            source_ref  text     COLLATE "C" NOT NULL,
            content     text     NOT NULL,
            at_time     bigint   NOT NULL,
            actor       text     NOT NULL,
            state       text     NOT NULL,
            priority    smallint NOT NULL,
            opened_time bigint   NOT NULL,
            PRIMARY KEY (pins_digest, sequence)
        )""")
    op.execute("COMMENT ON COLUMN ofp.case_entry.state IS 'of the case once it has this entry, as priority and opened_time'")
    op.execute("CREATE UNIQUE INDEX case_entry_once ON ofp.case_entry (pins_digest, entry_type, source_ref, case_id)")
    op.execute("CREATE INDEX case_entry_case ON ofp.case_entry (pins_digest, case_id, sequence)")
    op.execute("CREATE INDEX case_entry_event ON ofp.case_entry (pins_digest, event_id)")
    op.execute("CREATE INDEX case_entry_queue ON ofp.case_entry (pins_digest, state, priority, opened_time, case_id)")
    op.execute("""
        CREATE TABLE ofp.case_entry_conflict (
            pins_digest  text   COLLATE "C" NOT NULL,
            case_id      text   COLLATE "C" NOT NULL,
            entry_type   text   NOT NULL,
            source_ref   text   COLLATE "C" NOT NULL,
            first_digest text   NOT NULL,
            other_digest text   NOT NULL,
            content      text   NOT NULL,
            at_time      bigint NOT NULL,
            actor        text   NOT NULL,
            PRIMARY KEY (pins_digest, case_id, entry_type, source_ref, other_digest)
        )""")
    for table in TABLES:  # as in 0006 and 0028
        op.execute(f"""
            CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ofp.{table}
            FOR EACH STATEMENT EXECUTE FUNCTION ofp.refuse_change_of_record()""")
        op.execute(f"ALTER TABLE ofp.{table} ENABLE ALWAYS TRIGGER append_only")
        op.execute(f"ALTER TABLE ofp.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"""
            CREATE POLICY runs_of_role ON ofp.{table} USING (
                EXISTS (SELECT FROM ofp.database_role AS it WHERE it.role_name = current_user AND '*' = ANY (it.runs))
                OR pins_digest = ANY (ARRAY(
                    SELECT unnest(it.runs) FROM ofp.database_role AS it WHERE it.role_name = current_user
                ))
            )""")
    # the records are canonical JSON, so the text is there once (as decided_at in 0035)
    op.execute("""
        CREATE INDEX decision_record_escalated ON ofp.decision_record (pins_digest, decided_at, decision_id)
        WHERE substring(content FROM '"outcome":"([a-z]+)"') IN ('review', 'decline')""")


def downgrade() -> None:
    """Drop them: what was said in cases is lost, but for labels that the label store took."""
    op.execute("DROP INDEX ofp.decision_record_escalated")
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE ofp.{table}")
