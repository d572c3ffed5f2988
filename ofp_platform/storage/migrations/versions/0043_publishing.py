"""Publishing: batches on their way into a log that somebody else keeps, places by sequence number; segments of receipts."""

from alembic import op

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them."""
    op.execute("""
        ALTER TABLE ofp.admitted_event
            ALTER COLUMN record_offset DROP NOT NULL,
            ADD COLUMN record_token text COLLATE "C",
            ADD CONSTRAINT admitted_event_one_place CHECK ((record_offset IS NULL) <> (record_token IS NULL))""")
    # asked for each row, it takes a tenth of an admission; runs are behind a wall, and who admits has the number from there
    op.execute("ALTER TABLE ofp.admitted_event DROP CONSTRAINT admitted_event_run_number_fkey")
    op.execute("COMMENT ON COLUMN ofp.admitted_event.record_token IS 'the sequence number, where the log has no offsets'")
    op.execute("""
        CREATE TABLE ofp.admission_publish (
            publish_id       bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            run_number       integer NOT NULL REFERENCES ofp.admission_run,
            state            text    NOT NULL CHECK (state IN ('PUBLISH_IN_FLIGHT', 'PUBLISH_AMBIGUOUS')),
            begun_at         bigint  NOT NULL,
            ambiguous_at     bigint,
            looked_at        bigint,
            producer         text    NOT NULL,
            class_map_digest text    NOT NULL,
            idempotency_key  text,
            request_digest   bytea,
            traffic_head     text    NOT NULL,
            context_head     text,
            outcomes         bytea   NOT NULL,
            content          bytea   NOT NULL,
            UNIQUE (run_number, producer, idempotency_key),
            CHECK ((idempotency_key IS NULL) = (request_digest IS NULL)),
            CHECK (state = 'PUBLISH_IN_FLIGHT' OR ambiguous_at IS NOT NULL)
        )""")
    op.execute("COMMENT ON COLUMN ofp.admission_publish.traffic_head IS 'before anything was sent: the log is read from there'")
    op.execute("CREATE INDEX admission_publish_run ON ofp.admission_publish (run_number, publish_id)")
    op.execute("""
        CREATE TABLE ofp.admission_publish_record (
            publish_id bigint  NOT NULL REFERENCES ofp.admission_publish,
            run_number integer NOT NULL,
            event_key  bytea   NOT NULL CHECK (octet_length(event_key) = 32),
            event_type text    NOT NULL,
            place      integer NOT NULL,
            is_context boolean NOT NULL,
            PRIMARY KEY (event_key, run_number)
        )""")
    op.execute("COMMENT ON TABLE ofp.admission_publish_record IS 'who is on its way: no other batch sends the same event'")
    op.execute("CREATE INDEX admission_publish_record_batch ON ofp.admission_publish_record (publish_id)")
    op.execute("""
        CREATE TABLE ofp.receipt_segment (
            run_number     integer NOT NULL REFERENCES ofp.admission_run,
            hour_begin     bigint  NOT NULL CHECK (hour_begin % 3600000000 = 0),
            part           integer NOT NULL CHECK (part >= 0),
            object_path    text    NOT NULL,
            content_sha256 text    NOT NULL,
            batches        integer NOT NULL,
            receipts       bigint  NOT NULL,
            PRIMARY KEY (run_number, hour_begin, part)
        )""")
    op.execute("""
        CREATE TRIGGER wall BEFORE UPDATE OR DELETE OR TRUNCATE ON ofp.receipt_segment
        FOR EACH STATEMENT EXECUTE FUNCTION ofp.refuse_change_by_others()""")
    op.execute("ALTER TABLE ofp.receipt_segment ENABLE ALWAYS TRIGGER wall")
    op.execute("CREATE INDEX admission_batch_received ON ofp.admission_batch (run_number, received_at)")


def downgrade() -> None:
    """Drop them; refused while a record has its place by a sequence number."""
    op.execute("DROP INDEX ofp.admission_batch_received")
    op.execute("DROP TABLE ofp.receipt_segment")
    op.execute("DROP TABLE ofp.admission_publish_record")
    op.execute("DROP TABLE ofp.admission_publish")
    op.execute("ALTER TABLE ofp.admitted_event DROP CONSTRAINT admitted_event_one_place, DROP COLUMN record_token")
    op.execute("ALTER TABLE ofp.admitted_event ALTER COLUMN record_offset SET NOT NULL")
    op.execute("ALTER TABLE ofp.admitted_event ADD FOREIGN KEY (run_number) REFERENCES ofp.admission_run")
