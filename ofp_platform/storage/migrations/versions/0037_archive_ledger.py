"""The receipts that must be in the archive."""

from alembic import op

revision = "0037"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them. What is archived already is noted when it is verified the next time."""
    op.execute("""
        CREATE TABLE ofp.archive_ledger (
            stream_name    text NOT NULL,
            partition_id   text COLLATE "C" NOT NULL,
            receipt_path   text COLLATE "C" NOT NULL,
            content_digest text NOT NULL,
            PRIMARY KEY (stream_name, partition_id, receipt_path)
        )""")
    op.execute("COMMENT ON TABLE ofp.archive_ledger IS 'receipts that were written to the archive or proven in it'")
    op.execute("""
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ofp.archive_ledger
        FOR EACH STATEMENT EXECUTE FUNCTION ofp.refuse_change_of_record()""")
    op.execute("ALTER TABLE ofp.archive_ledger ENABLE ALWAYS TRIGGER append_only")


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP TABLE ofp.archive_ledger")
