"""Links between entities, folded from the context stream: added to, and read as of any version."""

from alembic import op

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the graph, its links and the records that are none."""
    op.execute("""
        CREATE TABLE ofp.entity_graph (
            graph_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            stream_name text NOT NULL,
            pins_digest text NOT NULL,
            version     bigint NOT NULL DEFAULT 0,
            basis       text NOT NULL,
            records     bigint NOT NULL DEFAULT 0,
            links       bigint NOT NULL DEFAULT 0,
            copies      bigint NOT NULL DEFAULT 0,
            ignored_records bigint NOT NULL DEFAULT 0,
            other_run   bigint NOT NULL DEFAULT 0,
            failures    bigint NOT NULL DEFAULT 0,
            UNIQUE (stream_name, pins_digest)
        )""")
    op.execute("""
        CREATE TABLE ofp.entity_link (
            graph_id     bigint NOT NULL REFERENCES ofp.entity_graph,
            identity     bytea NOT NULL CHECK (octet_length(identity) = 32),
            id_digest    bytea NOT NULL CHECK (octet_length(id_digest) = 32),
            key_type     text COLLATE "C" NOT NULL,
            member       text COLLATE "C" NOT NULL,
            canonical    text COLLATE "C" NOT NULL,
            effective_ts bigint NOT NULL,
            is_link      boolean NOT NULL,
            event_id     text NOT NULL,
            partition_id text NOT NULL,
            record_offset text NOT NULL,
            version      bigint NOT NULL,
            PRIMARY KEY (graph_id, identity)
        )""")
    op.execute("CREATE INDEX entity_link_member ON ofp.entity_link (graph_id, key_type, member)")
    op.execute("CREATE INDEX entity_link_canonical ON ofp.entity_link (graph_id, key_type, canonical)")
    op.execute("COMMENT ON COLUMN ofp.entity_link.version IS 'of the graph from which on it is known'")
    op.execute("""
        CREATE TABLE ofp.entity_link_failure (
            graph_id      bigint NOT NULL REFERENCES ofp.entity_graph,
            partition_id  text COLLATE "C" NOT NULL,
            record_offset text NOT NULL,
            reason        text NOT NULL,
            detail        text NOT NULL,
            PRIMARY KEY (graph_id, partition_id, record_offset)
        )""")

    for table in ("entity_link", "entity_link_failure"):  # as in 0028
        op.execute(f"""
            CREATE TRIGGER wall BEFORE UPDATE OR DELETE OR TRUNCATE ON ofp.{table}
            FOR EACH STATEMENT EXECUTE FUNCTION ofp.refuse_change_by_others()""")
        op.execute(f"ALTER TABLE ofp.{table} ENABLE ALWAYS TRIGGER wall")
    op.execute("ALTER TABLE ofp.entity_graph ENABLE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY runs_of_role ON ofp.entity_graph USING (
            EXISTS (SELECT FROM ofp.database_role AS it WHERE it.role_name = current_user AND '*' = ANY (it.runs))
            OR pins_digest = ANY (ARRAY(
                SELECT unnest(it.runs) FROM ofp.database_role AS it WHERE it.role_name = current_user
            ))
        )""")


def downgrade() -> None:
    """Drop it: the context stream has all of it."""
    for table in ("entity_link_failure", "entity_link", "entity_graph"):
        op.execute(f"DROP TABLE ofp.{table}")
