"""Two more jobs with roles of their own: the decider and the executor."""

from alembic import op

revision = "0045"
down_revision = "0044"
branch_labels = None
depends_on = None

_BEFORE = ("ingress", "projector", "serving", "offline", "auditor")
_NEW = ("decider", "executor")


def _allow(jobs: tuple[str, ...]) -> None:
    names = ", ".join(f"'{job}'" for job in jobs)
    op.execute("ALTER TABLE ofp.database_role DROP CONSTRAINT database_role_job_check")
    op.execute(f"ALTER TABLE ofp.database_role ADD CONSTRAINT database_role_job_check CHECK (job IN ({names}))")


def upgrade() -> None:
    """Allow them."""
    _allow((*_BEFORE, *_NEW))


def downgrade() -> None:
    """Forget who has them; the roles themselves stay, without rights in this schema."""
    names = ", ".join(f"'{job}'" for job in _NEW)
    op.execute(f"DELETE FROM ofp.database_role WHERE job IN ({names})")
    _allow(_BEFORE)
