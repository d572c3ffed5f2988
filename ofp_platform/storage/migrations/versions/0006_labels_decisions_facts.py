"""Label assertions, decision records, run facts: rows are added, and nothing else can be done to them."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLES = ("label_assertion", "decision_record", "run_facts")


def upgrade() -> None:
    """Create the tables and their guards."""
    op.execute("""
        CREATE TABLE ofp.label_assertion (
            pins_digest    text   NOT NULL,
            assertion_id   text   COLLATE "C" NOT NULL,
            event_id       text   COLLATE "C" NOT NULL,
            label_type     text   NOT NULL,
            value          bigint NOT NULL,
            effective_time bigint NOT NULL,
            observed_time  bigint NOT NULL,
            source         text   NOT NULL,
            PRIMARY KEY (pins_digest, assertion_id)
        )""")
    op.execute("CREATE INDEX label_assertion_observed ON ofp.label_assertion (pins_digest, label_type, observed_time)")
    op.execute("COMMENT ON COLUMN ofp.label_assertion.observed_time IS 'microseconds; decides what is known as of a time'")
    op.execute("""
        CREATE TABLE ofp.decision_record (
            decision_id   text    COLLATE "C" PRIMARY KEY,
            pins_digest   text    NOT NULL,
            stream_name   text    NOT NULL,
            partition_id  text    NOT NULL,
            record_offset numeric NOT NULL,
            event_id      text    NOT NULL,
            snapshot_hash text    NOT NULL,
            content       text    NOT NULL
        )""")
    op.execute("""
        CREATE INDEX decision_record_position
        ON ofp.decision_record (pins_digest, stream_name, partition_id, record_offset)""")
    op.execute("COMMENT ON COLUMN ofp.decision_record.record_offset IS 'numeric: a sequence number may have 128 digits'")
    op.execute("""
        CREATE TABLE ofp.run_facts (
            reference text PRIMARY KEY,
            digest    text NOT NULL,
            content   text NOT NULL
        )""")
    op.execute("""
        CREATE FUNCTION ofp.refuse_change_of_record() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE restrict_violation USING
                MESSAGE = TG_OP || ' refused: rows of ' || TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME
                    || ' are never changed or removed',
                HINT = 'Append another row instead.';
        END $$""")
    for table in TABLES:
        op.execute(f"""
            CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ofp.{table}
            FOR EACH STATEMENT EXECUTE FUNCTION ofp.refuse_change_of_record()""")
        # also where a session calls itself a replica
        op.execute(f"ALTER TABLE ofp.{table} ENABLE ALWAYS TRIGGER append_only")


def downgrade() -> None:
    """Drop them with everything in them."""
    for table in TABLES:
        op.execute(f"DROP TABLE ofp.{table}")
    op.execute("DROP FUNCTION ofp.refuse_change_of_record()")
