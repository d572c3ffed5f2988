"""The audit log: leaves, nodes of the tree, signed heads, quarantine; and when decisions and datasets were recorded."""

from alembic import op

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None

TABLES = ("audit_leaf", "audit_node", "audit_head", "audit_quarantine")


def upgrade() -> None:
    """Add them. Rows of before keep no time of recording: the first append takes them all."""
    op.execute("""
        CREATE TABLE ofp.audit_leaf (
            leaf_index    bigint PRIMARY KEY CHECK (leaf_index >= 0),
            leaf_kind     text   COLLATE "C" NOT NULL,
            subject       text   COLLATE "C" NOT NULL,
            record_digest text   NOT NULL,
            content       text   NOT NULL,
            leaf_hash     bytea  NOT NULL CHECK (leaf_hash = sha256('\\x00'::bytea || convert_to(content, 'UTF8'))),
            UNIQUE (leaf_kind, subject)
        )""")
    op.execute("""
        CREATE TABLE ofp.audit_node (
            level integer NOT NULL CHECK (level > 0),
            index bigint  NOT NULL CHECK (index >= 0),
            hash  bytea   NOT NULL CHECK (length(hash) = 32),
            PRIMARY KEY (level, index)
        )""")
    op.execute("COMMENT ON TABLE ofp.audit_node IS 'complete subtrees above the leaves: 2^level leaves from index * 2^level on'")
    op.execute("""
        CREATE TABLE ofp.audit_head (
            tree_size bigint PRIMARY KEY CHECK (tree_size > 0),
            digest    text   NOT NULL,
            content   text   NOT NULL
        )""")
    op.execute("""
        CREATE TABLE ofp.audit_quarantine (
            leaf_kind text COLLATE "C" NOT NULL,
            subject   text COLLATE "C" NOT NULL,
            reason    text NOT NULL,
            PRIMARY KEY (leaf_kind, subject, reason)
        )""")
    for table in TABLES:  # as in 0006 and 0028
        op.execute(f"""
            CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ofp.{table}
            FOR EACH STATEMENT EXECUTE FUNCTION ofp.refuse_change_of_record()""")
        op.execute(f"ALTER TABLE ofp.{table} ENABLE ALWAYS TRIGGER append_only")
    for table in ("decision_record", "dataset_index"):
        op.execute(f"ALTER TABLE ofp.{table} ADD COLUMN recorded_at timestamptz")  # null for rows of before, without a rewrite
        op.execute(f"ALTER TABLE ofp.{table} ALTER COLUMN recorded_at SET DEFAULT clock_timestamp()")
        op.execute(f"COMMENT ON COLUMN ofp.{table}.recorded_at IS 'by the clock of the database; no value depends on it'")


def downgrade() -> None:
    """Drop them: heads stay in the object store, and nothing can be proven from them."""
    for table in ("decision_record", "dataset_index"):
        op.execute(f"ALTER TABLE ofp.{table} DROP COLUMN recorded_at")
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE ofp.{table}")
