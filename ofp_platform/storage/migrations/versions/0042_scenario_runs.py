"""Runs of scenarios: which intent a run that became READY has, and each step of any run, appended."""

from alembic import op

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None

TABLES = ("scenario_run", "run_status")


def upgrade() -> None:
    """Add them."""
    op.execute("""
        CREATE TABLE ofp.scenario_run (
            pins_digest     text COLLATE "C" PRIMARY KEY,
            scenario_run_id text COLLATE "C" NOT NULL,
            intent_digest   text NOT NULL,
            plan_digest     text NOT NULL
        )""")
    op.execute("COMMENT ON COLUMN ofp.scenario_run.scenario_run_id IS 'from the equivalence key; sessions share it'")
    op.execute("CREATE INDEX scenario_run_by_id ON ofp.scenario_run (scenario_run_id)")
    op.execute("""
        CREATE TABLE ofp.run_status (
            pins_digest text    COLLATE "C" NOT NULL,
            sequence    integer NOT NULL CHECK (sequence >= 0),
            state       text    NOT NULL CHECK (state IN ('REFUSED', 'READY', 'ENDED', 'CANCELLED')),
            content     text    NOT NULL,
            PRIMARY KEY (pins_digest, sequence)
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


def downgrade() -> None:
    """Drop them: which runs were READY is not known then but from control."""
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE ofp.{table}")
