"""Where each case of a run stands, so that the queue is read off an index: of the timelines it has to look past closed cases.

A row follows from the entries of its case and is written with each; what decides is the last entry.
"""

from alembic import op

revision = "0055"
down_revision = "0054"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it, filled from the entries, and drop the index over those."""
    op.execute("""
        CREATE TABLE ofp.case_standing (
            pins_digest text     COLLATE "C" NOT NULL,
            case_id     text     COLLATE "C" NOT NULL,
            sequence    bigint   NOT NULL,
            state       text     NOT NULL,
            priority    smallint NOT NULL,
            opened_time bigint   NOT NULL,
            PRIMARY KEY (pins_digest, case_id)
        )""")
    op.execute("COMMENT ON COLUMN ofp.case_standing.sequence IS 'of the last entry of the case'")
    op.execute("""
        INSERT INTO ofp.case_standing
        SELECT DISTINCT ON (pins_digest, case_id) pins_digest, case_id, sequence, state, priority, opened_time
        FROM ofp.case_entry ORDER BY pins_digest, case_id, sequence DESC""")
    op.execute("CREATE INDEX case_standing_queue ON ofp.case_standing (pins_digest, state, priority, opened_time, case_id)")
    op.execute("DROP INDEX ofp.case_entry_queue")
    op.execute("ALTER TABLE ofp.case_standing ENABLE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY runs_of_role ON ofp.case_standing USING (
            EXISTS (SELECT FROM ofp.database_role AS it WHERE it.role_name = current_user AND '*' = ANY (it.runs))
            OR pins_digest = ANY (ARRAY(
                SELECT unnest(it.runs) FROM ofp.database_role AS it WHERE it.role_name = current_user
            ))
        )""")


def downgrade() -> None:
    """Drop it: the entries say as much, more slowly."""
    op.execute("DROP TABLE ofp.case_standing")
    op.execute("CREATE INDEX case_entry_queue ON ofp.case_entry (pins_digest, state, priority, opened_time, case_id)")
