"""Asks for runs, by file or over HTTP, and what a runner made of each."""

from alembic import op

revision = "0044"
down_revision = "0043"
branch_labels = None
depends_on = None

TABLES = ("run_ask", "run_ask_outcome")


def upgrade() -> None:
    """Add them."""
    op.execute("""
        CREATE TABLE ofp.run_ask (
            ask_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            pins_digest text   COLLATE "C" NOT NULL,
            content     text   NOT NULL,
            actor       text   NOT NULL,
            asked_at    bigint NOT NULL
        )""")
    op.execute("COMMENT ON COLUMN ofp.run_ask.asked_at IS 'microseconds, by the clock of the database'")
    op.execute("CREATE INDEX run_ask_by_run ON ofp.run_ask (pins_digest, ask_id)")
    op.execute("""
        CREATE TABLE ofp.run_ask_outcome (
            ask_id   bigint PRIMARY KEY REFERENCES ofp.run_ask,
            state    text   NOT NULL CHECK (state IN ('REFUSED', 'READY')),
            problems text   NOT NULL
        )""")
    for table in TABLES:  # as in 0006 and 0028
        op.execute(f"""
            CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ofp.{table}
            FOR EACH STATEMENT EXECUTE FUNCTION ofp.refuse_change_of_record()""")
        op.execute(f"ALTER TABLE ofp.{table} ENABLE ALWAYS TRIGGER append_only")
    op.execute("ALTER TABLE ofp.run_ask ENABLE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY runs_of_role ON ofp.run_ask USING (
            EXISTS (SELECT FROM ofp.database_role AS it WHERE it.role_name = current_user AND '*' = ANY (it.runs))
            OR pins_digest = ANY (ARRAY(
                SELECT unnest(it.runs) FROM ofp.database_role AS it WHERE it.role_name = current_user
            ))
        )""")


def downgrade() -> None:
    """Drop them: what was asked for is not known then; what became of runs is."""
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE ofp.{table}")
