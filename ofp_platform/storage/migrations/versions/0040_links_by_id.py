"""Indexes of links that begin with the id: the planner cannot take one for the other, whatever it knows of the table."""

from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None

_SIDES = ("member", "canonical")


def upgrade() -> None:
    """Make them anew. Both began with graph and key type, and were equally good to a planner without statistics."""
    for side in _SIDES:
        op.execute(f"DROP INDEX ofp.entity_link_{side}")
        op.execute(f"CREATE INDEX entity_link_{side} ON ofp.entity_link ({side}, key_type, graph_id)")


def downgrade() -> None:
    """Put the former ones back."""
    for side in _SIDES:
        op.execute(f"DROP INDEX ofp.entity_link_{side}")
        op.execute(f"CREATE INDEX entity_link_{side} ON ofp.entity_link (graph_id, key_type, {side})")
