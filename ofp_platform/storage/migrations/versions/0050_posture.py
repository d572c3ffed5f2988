"""Posture: changes of the mode in force, challenges of deciders and their answers, and which deciders are live."""

from alembic import op

revision = "0050"
down_revision = "0049"
branch_labels = None
depends_on = None

APPENDED = ("posture_change", "posture_challenge", "posture_answer")
OF_A_RUN = ("posture_change", "posture_challenge", "decider_seat")
_MODES = "'NORMAL', 'REDUCED', 'RULES_ONLY', 'HOLD', 'FAIL_CLOSED'"


def upgrade() -> None:
    """Add them."""
    op.execute("""
        CREATE TABLE ofp.posture_change (
            pins_digest text   COLLATE "C" NOT NULL,
            sequence    bigint NOT NULL CHECK (sequence >= 0),
            content     text   NOT NULL,
            position    text   NOT NULL,
            PRIMARY KEY (pins_digest, sequence)
        )""")
    op.execute("COMMENT ON COLUMN ofp.posture_change.position IS 'where control says it'")
    op.execute("""
        CREATE TABLE ofp.posture_challenge (
            nonce       text   COLLATE "C" PRIMARY KEY CHECK (nonce ~ '^[0-9a-f]{32}$'),
            pins_digest text   COLLATE "C" NOT NULL,
            asked_at    bigint NOT NULL,
            actor       text   NOT NULL
        )""")
    op.execute("CREATE INDEX posture_challenge_by_run ON ofp.posture_challenge (pins_digest, asked_at)")
    op.execute(f"""
        CREATE TABLE ofp.posture_answer (
            nonce       text   COLLATE "C" NOT NULL REFERENCES ofp.posture_challenge,
            answered_by text   COLLATE "C" NOT NULL,
            mode        text   NOT NULL CHECK (mode IN ({_MODES})),
            sequence    bigint,
            answered_at bigint NOT NULL,
            PRIMARY KEY (nonce, answered_by)
        )""")
    op.execute("""
        CREATE TABLE ofp.decider_seat (
            pins_digest  text   COLLATE "C" NOT NULL,
            decider_name text   COLLATE "C" NOT NULL,
            seen_at      bigint NOT NULL,
            PRIMARY KEY (pins_digest, decider_name)
        )""")
    for column in ("posture_challenge.asked_at", "posture_answer.answered_at", "decider_seat.seen_at"):
        op.execute(f"COMMENT ON COLUMN ofp.{column} IS 'microseconds, by the clock of the database'")
    for table in APPENDED:  # as in 0006 and 0028
        op.execute(f"""
            CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ofp.{table}
            FOR EACH STATEMENT EXECUTE FUNCTION ofp.refuse_change_of_record()""")
        op.execute(f"ALTER TABLE ofp.{table} ENABLE ALWAYS TRIGGER append_only")
    for table in OF_A_RUN:
        op.execute(f"ALTER TABLE ofp.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"""
            CREATE POLICY runs_of_role ON ofp.{table} USING (
                EXISTS (SELECT FROM ofp.database_role AS it WHERE it.role_name = current_user AND '*' = ANY (it.runs))
                OR pins_digest = ANY (ARRAY(
                    SELECT unnest(it.runs) FROM ofp.database_role AS it WHERE it.role_name = current_user
                ))
            )""")


def downgrade() -> None:
    """Drop them: which mode is in force is not known then; what control said of it is."""
    for table in ("decider_seat", "posture_answer", "posture_challenge", "posture_change"):
        op.execute(f"DROP TABLE ofp.{table}")
