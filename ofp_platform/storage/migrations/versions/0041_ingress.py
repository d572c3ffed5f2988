"""Ingress: what was admitted under which identity, a receipt for each record that was sent, and what is in quarantine."""

from alembic import op

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None

TABLES = ("admission_run", "admitted_event", "admission_batch", "quarantined_record", "quarantine_replay")


def upgrade() -> None:
    """Add them."""
    op.execute("""
        CREATE TABLE ofp.admission_run (
            run_number  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            pins_digest text NOT NULL UNIQUE
        )""")
    op.execute("""
        CREATE TABLE ofp.admitted_event (
            run_number    integer NOT NULL REFERENCES ofp.admission_run,
            event_key     bytea   NOT NULL CHECK (octet_length(event_key) = 32),
            payload_hash  bytea   NOT NULL CHECK (octet_length(payload_hash) = 32),
            is_context    boolean NOT NULL,
            partition_id  text    COLLATE "C" NOT NULL,
            record_offset bigint  NOT NULL,
            incarnation   text,
            PRIMARY KEY (event_key, run_number)
        )""")
    op.execute("COMMENT ON COLUMN ofp.admitted_event.event_key IS 'SHA-256 of event class and id: the identity within a run'")
    op.execute("""
        CREATE TABLE ofp.admission_batch (
            batch_id         bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            run_number       integer NOT NULL REFERENCES ofp.admission_run,
            producer         text    NOT NULL,
            class_map_digest text    NOT NULL,
            received_at      bigint  NOT NULL,
            records          integer NOT NULL,
            admitted         integer NOT NULL,
            duplicates       integer NOT NULL,
            quarantined      integer NOT NULL,
            receipts         bytea   NOT NULL,
            idempotency_key  text,
            request_digest   bytea,
            UNIQUE (run_number, producer, idempotency_key),
            CHECK ((idempotency_key IS NULL) = (request_digest IS NULL)),
            CHECK (records = admitted + duplicates + quarantined AND records > 0)
        )""")
    op.execute("COMMENT ON COLUMN ofp.admission_batch.received_at IS 'microseconds, by the clock of the database'")
    op.execute("CREATE INDEX admission_batch_run ON ofp.admission_batch (run_number, batch_id)")
    op.execute("""
        CREATE TABLE ofp.quarantined_record (
            quarantine_id bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            batch_id      bigint  NOT NULL REFERENCES ofp.admission_batch,
            place         integer NOT NULL,
            reason        text    NOT NULL,
            detail        text    NOT NULL,
            event_type    text,
            event_id      text,
            object_path   text,
            UNIQUE (batch_id, place)
        )""")
    op.execute(
        "COMMENT ON COLUMN ofp.quarantined_record.object_path IS 'null where the record is kept nowhere: a raw identifier'"
    )
    op.execute("""
        CREATE TABLE ofp.quarantine_replay (
            quarantine_id bigint NOT NULL REFERENCES ofp.quarantined_record,
            batch_id      bigint NOT NULL REFERENCES ofp.admission_batch,
            place         integer NOT NULL,
            PRIMARY KEY (quarantine_id, batch_id)
        )""")
    op.execute("""
        CREATE TABLE ofp.stream_checkpoint (
            pins_digest     text   NOT NULL,
            manifest_digest text   NOT NULL,
            output          text   NOT NULL,
            rows_sent       bigint NOT NULL CHECK (rows_sent >= 0),
            PRIMARY KEY (pins_digest, manifest_digest, output)
        )""")
    for table in TABLES:  # as in 0028
        op.execute(f"""
            CREATE TRIGGER wall BEFORE UPDATE OR DELETE OR TRUNCATE ON ofp.{table}
            FOR EACH STATEMENT EXECUTE FUNCTION ofp.refuse_change_by_others()""")
        op.execute(f"ALTER TABLE ofp.{table} ENABLE ALWAYS TRIGGER wall")
    for table in ("admission_run", "stream_checkpoint"):
        op.execute(f"ALTER TABLE ofp.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"""
            CREATE POLICY runs_of_role ON ofp.{table} USING (
                EXISTS (SELECT FROM ofp.database_role AS it WHERE it.role_name = current_user AND '*' = ANY (it.runs))
                OR pins_digest = ANY (ARRAY(
                    SELECT unnest(it.runs) FROM ofp.database_role AS it WHERE it.role_name = current_user
                ))
            )""")


def downgrade() -> None:
    """Drop them: receipts are gone then, and copies of what was admitted are admitted again."""
    for table in ("stream_checkpoint", *reversed(TABLES)):
        op.execute(f"DROP TABLE ofp.{table}")
