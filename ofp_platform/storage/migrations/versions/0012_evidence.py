"""The evidence behind the checks of run facts: what was looked at, by the digest that the facts name."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table. Evidence is added, and nothing else can be done to it."""
    op.execute("""
        CREATE TABLE ofp.evidence (
            digest  text PRIMARY KEY CHECK (digest = encode(sha256(convert_to(content, 'UTF8')), 'hex')),
            content text NOT NULL
        )""")
    op.execute("""
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ofp.evidence
        FOR EACH STATEMENT EXECUTE FUNCTION ofp.refuse_change_of_record()""")
    op.execute("ALTER TABLE ofp.evidence ENABLE ALWAYS TRIGGER append_only")


def downgrade() -> None:
    """Drop it with everything in it."""
    op.execute("DROP TABLE ofp.evidence")
