"""The stream of governance: whoever may append facts appends to it through a function, and to no other stream by that."""

from alembic import op

revision = "0052"
down_revision = "0051"
branch_labels = None
depends_on = None

STREAM = "ofp.governance"


def upgrade() -> None:
    """Add it. Facts that are there stay in their table alone; where those of the stream begin, is kept."""
    op.execute(f"""
        INSERT INTO ofp.log_stream (stream_name, partition_count, partition_key, server)
        VALUES ('{STREAM}', 1, 'event_id', ofp.log_server())""")
    op.execute(f"INSERT INTO ofp.log_head (stream_name, partition_id) VALUES ('{STREAM}', '0000')")
    op.execute("CREATE TABLE ofp.governance_stream (first_fact_number bigint NOT NULL)")
    op.execute("COMMENT ON TABLE ofp.governance_stream IS 'the number of the first fact that stands in the stream, too'")
    op.execute("INSERT INTO ofp.governance_stream SELECT coalesce(max(fact_number), 0) + 1 FROM ofp.governance_fact")
    op.execute("""
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ofp.governance_stream
        FOR EACH STATEMENT EXECUTE FUNCTION ofp.refuse_change_of_record()""")
    op.execute("ALTER TABLE ofp.governance_stream ENABLE ALWAYS TRIGGER append_only")
    # by the rights of the owner: roles that may append facts may not append to the log. It settles itself behind a recovery, for
    # the table lost what the stream lost, and a fact is never refused for that
    op.execute(f"""
        CREATE FUNCTION ofp.append_governance_block(
            records integer, admitted bigint, block_codec smallint, raw_size integer, data bytea
        ) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        DECLARE
            head record;
            begun text;
            floor_time bigint;
        BEGIN
            IF NOT has_table_privilege(session_user, 'ofp.governance_fact', 'INSERT') THEN
                RAISE insufficient_privilege USING MESSAGE = 'permission denied for the stream {STREAM}';
            END IF;
            SELECT log_head.next_offset, log_head.last_broker_time,
                right(log_stream.server, 8) IS NOT DISTINCT FROM ofp.log_timeline() AS is_settled INTO STRICT head
            FROM ofp.log_head JOIN ofp.log_stream USING (stream_name)
            WHERE log_head.stream_name = '{STREAM}' FOR UPDATE OF log_head;
            IF NOT head.is_settled THEN
                INSERT INTO ofp.log_incarnation (stream_name, number, incarnation, starts, server, reason)
                SELECT '{STREAM}',
                    1 + (SELECT count(*) FROM ofp.log_incarnation AS earlier WHERE earlier.stream_name = '{STREAM}'),
                    left(replace(gen_random_uuid()::text, '-', ''), 12), jsonb_build_object('0000', head.next_offset),
                    ofp.log_server(), 'behind a recovery the table of facts has what the stream has'
                RETURNING log_incarnation.incarnation INTO begun;
                UPDATE ofp.log_stream SET incarnation = begun, server = ofp.log_server()
                WHERE stream_name = '{STREAM}';
            END IF;
            floor_time := greatest(head.last_broker_time, admitted);
            UPDATE ofp.log_head SET next_offset = head.next_offset + records, last_broker_time = floor_time
            WHERE stream_name = '{STREAM}';
            INSERT INTO ofp.log_block (stream_name, partition_id, first_offset, record_count, first_admitted, last_admitted,
                admitted_floor, codec, raw_bytes, block)
            VALUES ('{STREAM}', '0000', head.next_offset, records, floor_time, floor_time,
                head.last_broker_time, block_codec, raw_size, data);
            RETURN head.next_offset;
        END $$""")


def downgrade() -> None:
    """Drop it; the facts stay in their table."""
    op.execute("DROP FUNCTION ofp.append_governance_block(integer, bigint, smallint, integer, bytea)")
    op.execute("DROP TABLE ofp.governance_stream")
    for table in ("log_block", "log_incarnation", "log_head", "log_stream"):
        op.execute(f"DELETE FROM ofp.{table} WHERE stream_name = '{STREAM}'")
