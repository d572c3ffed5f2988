"""Governance facts: builds that ended and runs that failed, for good."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table. Facts are added, and nothing else can be done to them."""
    op.execute("""
        CREATE TABLE ofp.governance_fact (
            fact_number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
            digest      text PRIMARY KEY CHECK (digest = encode(sha256(convert_to(content, 'UTF8')), 'hex')),
            fact        text NOT NULL CHECK (fact = content::jsonb ->> 'fact'),
            content     text NOT NULL,
            recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
        )""")
    op.execute("COMMENT ON COLUMN ofp.governance_fact.recorded_at IS 'when it was first written; no value depends on it'")
    op.execute("""
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ofp.governance_fact
        FOR EACH STATEMENT EXECUTE FUNCTION ofp.refuse_change_of_record()""")
    op.execute("ALTER TABLE ofp.governance_fact ENABLE ALWAYS TRIGGER append_only")


def downgrade() -> None:
    """Drop it with everything in it."""
    op.execute("DROP TABLE ofp.governance_fact")
