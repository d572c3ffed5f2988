"""Decisions by entity and time; who sent a decision or a label."""

from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them. The keys of what is recorded come from its content; of a record that is no JSON no key is known."""
    # times as texts that sort: without Z, with six digits of a fraction
    decided_at = """substring(content FROM '"decided_at_utc":"([^"Z]+)Z"')"""
    op.execute(f"""
        ALTER TABLE ofp.decision_record ADD COLUMN submitted_by text, ADD COLUMN decided_at text COLLATE "C"
        GENERATED ALWAYS AS (
            rpad({decided_at} || CASE WHEN length({decided_at}) = 19 THEN '.' ELSE '' END, 26, '0')
        ) STORED""")
    op.execute("COMMENT ON COLUMN ofp.decision_record.submitted_by IS 'principal; null: a decision service of the installation'")
    op.execute("CREATE INDEX decision_record_time ON ofp.decision_record (pins_digest, decided_at, decision_id)")
    op.execute("CREATE INDEX decision_record_event ON ofp.decision_record (pins_digest, event_id)")
    op.execute("ALTER TABLE ofp.label_assertion ADD COLUMN submitted_by text")
    op.execute("COMMENT ON COLUMN ofp.label_assertion.submitted_by IS 'principal; null: a command of the installation'")
    op.execute("""
        CREATE TABLE ofp.decision_key (
            pins_digest text NOT NULL,
            key_type    text NOT NULL,
            key_id      text COLLATE "C" NOT NULL,
            decided_at  text COLLATE "C" NOT NULL,
            decision_id text COLLATE "C" NOT NULL,
            PRIMARY KEY (pins_digest, key_type, key_id, decided_at, decision_id)
        )""")
    # PostgreSQL has IS JSON from 16 on only
    op.execute("""
        CREATE FUNCTION pg_temp.keys_of(content text) RETURNS jsonb LANGUAGE plpgsql AS $$
        BEGIN
            RETURN CASE WHEN jsonb_typeof(content::jsonb -> 'feature_keys') = 'array' THEN content::jsonb -> 'feature_keys' END;
        EXCEPTION WHEN data_exception THEN
            RETURN NULL;
        END $$""")
    op.execute("""
        INSERT INTO ofp.decision_key
        SELECT DISTINCT pins_digest, key ->> 'key_type', key ->> 'key_id', decided_at, decision_id
        FROM ofp.decision_record, jsonb_array_elements(
            CASE WHEN decided_at IS NOT NULL THEN pg_temp.keys_of(content) END) AS key""")
    op.execute("""
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ofp.decision_key
        FOR EACH STATEMENT EXECUTE FUNCTION ofp.refuse_change_of_record()""")
    op.execute("ALTER TABLE ofp.decision_key ENABLE ALWAYS TRIGGER append_only")
    op.execute("ALTER TABLE ofp.decision_key ENABLE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY runs_of_role ON ofp.decision_key USING (
            EXISTS (SELECT FROM ofp.database_role AS it WHERE it.role_name = current_user AND '*' = ANY (it.runs))
            OR pins_digest = ANY (ARRAY(
                SELECT unnest(it.runs) FROM ofp.database_role AS it WHERE it.role_name = current_user
            ))
        )""")


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP TABLE ofp.decision_key")
    op.execute("ALTER TABLE ofp.label_assertion DROP COLUMN submitted_by")
    op.execute("DROP INDEX ofp.decision_record_event")
    op.execute("ALTER TABLE ofp.decision_record DROP COLUMN decided_at, DROP COLUMN submitted_by")
