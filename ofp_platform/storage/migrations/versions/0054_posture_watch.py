"""When signals were last looked at: a watch of the posture that died is told from one that finds nothing to change."""

from alembic import op

revision = "0054"
down_revision = "0053"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it; walled by run, as in 0050."""
    op.execute("""
        CREATE TABLE ofp.posture_look (
            pins_digest text   COLLATE "C" PRIMARY KEY,
            looked_at   bigint NOT NULL
        )""")
    op.execute("COMMENT ON COLUMN ofp.posture_look.looked_at IS 'microseconds, by the clock of the database'")
    op.execute("ALTER TABLE ofp.posture_look ENABLE ROW LEVEL SECURITY")
    op.execute("""
        CREATE POLICY runs_of_role ON ofp.posture_look USING (
            EXISTS (SELECT FROM ofp.database_role AS it WHERE it.role_name = current_user AND '*' = ANY (it.runs))
            OR pins_digest = ANY (ARRAY(
                SELECT unnest(it.runs) FROM ofp.database_role AS it WHERE it.role_name = current_user
            ))
        )""")


def downgrade() -> None:
    """Drop it."""
    op.execute("DROP TABLE ofp.posture_look")
