"""When a projection was retired: retention counts from there."""

from alembic import op

revision = "0034"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Note the time with the status, whoever changes that; what is retired already counts from now."""
    op.execute("ALTER TABLE ofp.projection ADD COLUMN retired_at timestamptz")
    op.execute("COMMENT ON COLUMN ofp.projection.retired_at IS 'when it was retired; null: it is not'")
    op.execute("UPDATE ofp.projection SET retired_at = clock_timestamp() WHERE status = 'retired'")
    op.execute("""
        CREATE FUNCTION ofp.note_retirement() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.status = 'retired' AND OLD.status <> 'retired' THEN
                NEW.retired_at := clock_timestamp();
            ELSIF NEW.status <> 'retired' THEN
                NEW.retired_at := NULL;
            END IF;
            RETURN NEW;
        END $$""")
    op.execute("""
        CREATE TRIGGER note_retirement BEFORE UPDATE OF status ON ofp.projection
        FOR EACH ROW EXECUTE FUNCTION ofp.note_retirement()""")
    op.execute("ALTER TABLE ofp.projection ENABLE ALWAYS TRIGGER note_retirement")


def downgrade() -> None:
    """Forget the times."""
    op.execute("DROP TRIGGER note_retirement ON ofp.projection")
    op.execute("DROP FUNCTION ofp.note_retirement")
    op.execute("ALTER TABLE ofp.projection DROP COLUMN retired_at")
