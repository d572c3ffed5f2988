"""Actions: intents, attempts, outcomes, holds on accounts, and the queue of intents that are not over."""

from alembic import op

revision = "0047"
down_revision = "0046"
branch_labels = None
depends_on = None

APPENDED = ("action_intent", "action_intent_conflict", "action_attempt", "action_attempt_end", "action_outcome", "account_hold")
OF_A_RUN = ("action_intent", "action_intent_conflict", "action_open", "account_hold")


def upgrade() -> None:
    """Add them."""
    op.execute("""
        CREATE TABLE ofp.action_intent (
            intent_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            pins_digest     text   COLLATE "C" NOT NULL,
            idempotency_key text   COLLATE "C" NOT NULL,
            content_digest  text   COLLATE "C" NOT NULL,
            content         text   NOT NULL,
            UNIQUE (pins_digest, idempotency_key)
        )""")
    op.execute("CREATE INDEX action_intent_by_run ON ofp.action_intent (pins_digest, intent_id)")
    op.execute("""
        CREATE TABLE ofp.action_intent_conflict (
            pins_digest     text   COLLATE "C" NOT NULL,
            idempotency_key text   COLLATE "C" NOT NULL,
            content_digest  text   COLLATE "C" NOT NULL,
            content         text   NOT NULL,
            PRIMARY KEY (pins_digest, idempotency_key, content_digest)
        )""")
    op.execute("""
        CREATE TABLE ofp.action_attempt (
            intent_id  bigint  NOT NULL REFERENCES ofp.action_intent,
            attempt    integer NOT NULL CHECK (attempt >= 1),
            executor   text    NOT NULL,
            started_at bigint  NOT NULL,
            PRIMARY KEY (intent_id, attempt)
        )""")
    op.execute("COMMENT ON COLUMN ofp.action_attempt.started_at IS 'microseconds'")
    op.execute("""
        CREATE TABLE ofp.action_attempt_end (
            intent_id bigint  NOT NULL,
            attempt   integer NOT NULL,
            state     text    NOT NULL CHECK (state IN ('DONE', 'NOT_DONE', 'REFUSED')),
            reason    text    NOT NULL,
            ended_at  bigint  NOT NULL,
            PRIMARY KEY (intent_id, attempt),
            FOREIGN KEY (intent_id, attempt) REFERENCES ofp.action_attempt
        )""")
    op.execute("""
        CREATE TABLE ofp.action_outcome (
            intent_id bigint PRIMARY KEY REFERENCES ofp.action_intent,
            outcome   text   NOT NULL CHECK (outcome IN ('EXECUTED', 'DENIED', 'FAILED')),
            content   text   NOT NULL
        )""")
    op.execute("CREATE INDEX action_outcome_by_kind ON ofp.action_outcome (outcome, intent_id)")
    op.execute("""
        CREATE TABLE ofp.account_hold (
            hold_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            pins_digest     text   COLLATE "C" NOT NULL,
            account_id      text   COLLATE "C" NOT NULL,
            step            text   NOT NULL CHECK (step IN ('HOLD', 'RELEASE')),
            idempotency_key text   COLLATE "C" NOT NULL,
            at              bigint NOT NULL,
            UNIQUE (pins_digest, idempotency_key)
        )""")
    op.execute("CREATE INDEX account_hold_by_account ON ofp.account_hold (pins_digest, account_id, hold_id)")
    # what is not over, so that nobody looks through all that is; it says nothing that the others do not, but for who works at it
    op.execute("""
        CREATE TABLE ofp.action_open (
            intent_id   bigint  PRIMARY KEY REFERENCES ofp.action_intent,
            pins_digest text    COLLATE "C" NOT NULL,
            is_outside  boolean NOT NULL,
            due_at      bigint  NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
            claim       bigint  NOT NULL DEFAULT 0,
            questions       integer NOT NULL DEFAULT 0,
            for_people  boolean NOT NULL DEFAULT false,
            waiting     text    NOT NULL DEFAULT ''
        )""")
    op.execute(
        "CREATE INDEX action_open_by_time ON ofp.action_open (pins_digest, is_outside, due_at, intent_id) WHERE NOT for_people"
    )
    op.execute(
        "COMMENT ON COLUMN ofp.action_open.due_at IS 'microseconds by the clock of the database: end of a pause or a lease'"
    )
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
    """Drop them: what was wanted and done is not known then."""
    for table in ("action_open", *reversed(APPENDED)):
        op.execute(f"DROP TABLE ofp.{table}")
