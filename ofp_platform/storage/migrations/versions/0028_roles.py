"""Roles and their walls: who has which job, whose runs a role sees, and triggers that hold whatever rights somebody was given."""

from alembic import op

revision = "0028"
down_revision = "0026"
branch_labels = None
depends_on = None

# changed or removed by the owner alone: a trim, a pruning, a repair
WALLED = (
    "log_incarnation",
    "log_block",
    "log_following_record",
    "log_accepted_gap",
    "range_end",
    "archive_conflict",
    "registry_pack",
    "registry_group",
    "apply_failure",
    "anomaly",
    "snapshot_index",
    "correction",
    "dataset_index",
)
GUARDS = (("build_run", "guard"), ("build_run", "no_truncate"), ("build_receipt", "guard"), ("build_receipt", "append_only"))
OF_A_RUN = ("snapshot_index", "decision_record", "label_assertion", "label_assertion_without_class")


def upgrade() -> None:
    """Add them. The rights themselves are given after the migration, by `storage.roles`."""
    op.execute("""
        CREATE TABLE ofp.database_role (
            role_name text   PRIMARY KEY,
            job       text   NOT NULL CHECK (job IN ('ingress', 'projector', 'serving', 'offline', 'auditor')),
            runs      text[] NOT NULL
        )""")
    op.execute("COMMENT ON COLUMN ofp.database_role.runs IS 'pins digests of the runs whose rows it sees; * is every run'")
    op.execute("""
        CREATE FUNCTION ofp.refuse_change_by_others() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
                RETURN NULL;
            END IF;
            RAISE restrict_violation USING
                MESSAGE = TG_OP || ' refused: rows of ' || TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME
                    || ' are changed or removed by its owner alone, not by ' || current_user,
                HINT = 'Append another row instead.';
        END $$""")
    for table in WALLED:
        op.execute(f"""
            CREATE TRIGGER wall BEFORE UPDATE OR DELETE OR TRUNCATE ON ofp.{table}
            FOR EACH STATEMENT EXECUTE FUNCTION ofp.refuse_change_by_others()""")
        op.execute(f"ALTER TABLE ofp.{table} ENABLE ALWAYS TRIGGER wall")
    for table, trigger in GUARDS:
        op.execute(f"ALTER TABLE ofp.{table} ENABLE ALWAYS TRIGGER {trigger}")
    for table in OF_A_RUN:
        op.execute(f"ALTER TABLE ofp.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"""
            CREATE POLICY runs_of_role ON ofp.{table} USING (
                EXISTS (SELECT FROM ofp.database_role AS it WHERE it.role_name = current_user AND '*' = ANY (it.runs))
                OR pins_digest = ANY (ARRAY(
                    SELECT unnest(it.runs) FROM ofp.database_role AS it WHERE it.role_name = current_user
                ))
            )""")


def downgrade() -> None:
    """Drop them; roles keep the rights that they were given."""
    for table in OF_A_RUN:
        op.execute(f"DROP POLICY runs_of_role ON ofp.{table}")
        op.execute(f"ALTER TABLE ofp.{table} DISABLE ROW LEVEL SECURITY")
    for table, trigger in GUARDS:
        op.execute(f"ALTER TABLE ofp.{table} ENABLE TRIGGER {trigger}")
    for table in WALLED:
        op.execute(f"DROP TRIGGER wall ON ofp.{table}")
    op.execute("DROP FUNCTION ofp.refuse_change_by_others()")
    op.execute("DROP TABLE ofp.database_role")
