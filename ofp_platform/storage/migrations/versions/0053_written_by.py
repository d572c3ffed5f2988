"""Which transaction wrote a record that becomes a leaf of the audit log: what is new since a look is found by an index.

Numbers of transactions only grow, and a snapshot says below which of them all are over: whoever looked at everything then has to
look at the records of later ones alone. The number says nothing in another installation; who begins there looks at everything.
"""

from alembic import op

revision = "0053"
down_revision = "0052"
branch_labels = None
depends_on = None

TABLES = ("decision_record", "dataset_index", "label_assertion", "run_status", "bundle_event", "governance_fact")


def upgrade() -> None:
    """Add it, null in rows of before."""
    for table in TABLES:
        op.execute(f"ALTER TABLE ofp.{table} ADD COLUMN written_by bigint")
        op.execute(f"ALTER TABLE ofp.{table} ALTER COLUMN written_by SET DEFAULT pg_current_xact_id()::text::bigint")
        op.execute(f"COMMENT ON COLUMN ofp.{table}.written_by IS 'number of the transaction; no value depends on it'")
        op.execute(f"CREATE INDEX {table}_written ON ofp.{table} (written_by)")
    # who acts looks whether an entry of a case has its intent: by this, not through all that was ever wanted
    op.execute("""
        CREATE INDEX action_intent_of_case ON ofp.action_intent (pins_digest, (content::jsonb #>> '{origin,reference}'))
        WHERE content::jsonb #>> '{origin,origin_kind}' = 'case'""")


def downgrade() -> None:
    """Drop it."""
    op.execute("DROP INDEX ofp.action_intent_of_case")
    for table in TABLES:
        op.execute(f"ALTER TABLE ofp.{table} DROP COLUMN written_by")
