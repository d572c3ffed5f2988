"""Cancelled builds: a run that waits or runs ends FAILED as CANCELLED, and what was built of it is published no more."""

from importlib import import_module

from alembic import op

revision = "0032"
down_revision = "0028"
branch_labels = None
depends_on = None

_PLANS = "ofp_platform.storage.migrations.versions.0011_plans_of_attempts"
_OTHER_STEPS = "step NOT IN ('QUEUED -> RUNNING',"
_STEPS = """NOT (NEW.refusal_reason IS NOT DISTINCT FROM 'CANCELLED'
                  AND step IN ('QUEUED -> FAILED', 'RUNNING -> FAILED', 'PUBLISH_PENDING -> FAILED'))
             AND step NOT IN ('QUEUED -> RUNNING',"""
_OTHER_REST = "WHEN 'PUBLISH_PENDING' THEN true WHEN 'QUEUED' THEN false ELSE OLD.publish_only END"
_REST = """WHEN 'PUBLISH_PENDING' THEN true WHEN 'QUEUED' THEN false
                 ELSE OLD.publish_only AND NEW.refusal_reason IS DISTINCT FROM 'CANCELLED' END"""


def _guard() -> str:
    guard: str = import_module(_PLANS).RUN_GUARD
    return guard


def upgrade() -> None:
    """Let runs be cancelled, and show who asked for each."""
    guard = _guard()
    for before, after in ((_OTHER_STEPS, _STEPS), (_OTHER_REST, _REST)):
        if guard.count(before) != 1:
            raise ValueError(f"migration 0011 has no single {before!r}")
        guard = guard.replace(before, after)
    op.execute(guard)
    op.execute(
        "ALTER TABLE ofp.build_run ADD COLUMN submitted_by text GENERATED ALWAYS AS (intent::jsonb ->> 'submitted_by') STORED"
    )
    op.execute("CREATE INDEX build_run_submitted_by ON ofp.build_run (submitted_by, run_number)")


def downgrade() -> None:
    """Guard runs as before."""
    op.execute("ALTER TABLE ofp.build_run DROP COLUMN submitted_by")
    op.execute(_guard())
