"""The latest admission time that each partition was given by its broker's clock: no later record gets an earlier one."""

from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Note it at the head, and beside a block the least that its records' times are read as."""
    op.execute("ALTER TABLE ofp.log_head ADD COLUMN last_broker_time bigint")
    op.execute("ALTER TABLE ofp.log_block ADD COLUMN admitted_floor bigint")


def downgrade() -> None:
    """Forget them: times of records that the clock ran backwards for are read as it gave them."""
    op.execute("ALTER TABLE ofp.log_head DROP COLUMN last_broker_time")
    op.execute("ALTER TABLE ofp.log_block DROP COLUMN admitted_floor")
