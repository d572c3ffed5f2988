"""Labels by the class of their event, with their admission and their sequence."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Set the labels of before aside, since nothing in them says the class of their event or when they were admitted."""
    op.execute("ALTER TABLE ofp.label_assertion RENAME TO label_assertion_without_class")
    op.execute("ALTER INDEX ofp.label_assertion_pkey RENAME TO label_assertion_without_class_pkey")
    op.execute("ALTER INDEX ofp.label_assertion_observed RENAME TO label_assertion_without_class_observed")
    op.execute("""
        CREATE TABLE ofp.label_assertion (
            pins_digest    text   NOT NULL,
            sequence       bigint NOT NULL CHECK (sequence >= 0),
            assertion_id   text   COLLATE "C" NOT NULL,
            event_class    text   COLLATE "C" NOT NULL,
            event_id       text   COLLATE "C" NOT NULL,
            label_type     text   NOT NULL,
            value          bigint NOT NULL,
            effective_time bigint NOT NULL,
            stated_time    bigint NOT NULL,
            admitted_time  bigint NOT NULL,
            observed_time  bigint NOT NULL CHECK (observed_time = greatest(stated_time, admitted_time)),
            source         text   NOT NULL,
            PRIMARY KEY (pins_digest, sequence),
            UNIQUE (pins_digest, assertion_id)
        )""")
    op.execute("CREATE INDEX label_assertion_observed ON ofp.label_assertion (pins_digest, label_type, observed_time)")
    op.execute("COMMENT ON COLUMN ofp.label_assertion.stated_time IS 'microseconds; when the source says that it was observed'")
    op.execute("COMMENT ON COLUMN ofp.label_assertion.observed_time IS 'microseconds; decides what is known as of a time'")
    op.execute("""
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ofp.label_assertion
        FOR EACH STATEMENT EXECUTE FUNCTION ofp.refuse_change_of_record()""")
    op.execute("ALTER TABLE ofp.label_assertion ENABLE ALWAYS TRIGGER append_only")


def downgrade() -> None:
    """Drop them with everything in them, and put those of before back."""
    op.execute("DROP TABLE ofp.label_assertion")
    op.execute("ALTER TABLE ofp.label_assertion_without_class RENAME TO label_assertion")
    op.execute("ALTER INDEX ofp.label_assertion_without_class_pkey RENAME TO label_assertion_pkey")
    op.execute("ALTER INDEX ofp.label_assertion_without_class_observed RENAME TO label_assertion_observed")
