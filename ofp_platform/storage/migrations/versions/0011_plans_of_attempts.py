"""Plans of runs: one that is queued again is planned anew, and so is one that other code planned."""

from importlib import import_module

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

RUN_GUARD = """
CREATE OR REPLACE FUNCTION ofp.guard_build_run() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    step text;
    claimed boolean;
    wrong text;
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'QUEUED' OR NEW.plan IS NOT NULL OR NEW.publish_only OR NEW.attempts + NEW.publish_attempts <> 0 THEN
            RAISE check_violation USING MESSAGE = 'build run ' || NEW.run_key || ': a run begins QUEUED, with nothing done';
        END IF;
        RETURN NEW;
    END IF;
    IF TG_OP = 'DELETE' THEN
        RAISE check_violation USING MESSAGE = 'build run ' || OLD.run_key || ': runs are never deleted';
    END IF;
    step := OLD.state || ' -> ' || NEW.state;
    claimed := (NEW.attempts, NEW.publish_attempts) IS DISTINCT FROM (OLD.attempts, OLD.publish_attempts);
    wrong := CASE
        WHEN (NEW.run_number, NEW.run_key, NEW.intent_kind, NEW.intent, NEW.submitted_at)
             IS DISTINCT FROM (OLD.run_number, OLD.run_key, OLD.intent_kind, OLD.intent, OLD.submitted_at)
            THEN 'what was asked never changes'
        -- a run that is queued again is planned anew, and so is one that other code planned
        WHEN OLD.plan IS NOT NULL AND NEW.plan IS DISTINCT FROM OLD.plan
             AND NOT (NEW.plan IS NULL AND step = 'FAILED -> QUEUED')
             AND NOT coalesce(step = 'RUNNING -> RUNNING' AND NEW.plan::jsonb ->> 'ofs_code_release_id'
                              <> OLD.plan::jsonb ->> 'ofs_code_release_id', false)
            THEN 'its plan never changes'
        WHEN OLD.plan IS NULL AND NEW.plan IS NOT NULL AND step <> 'RUNNING -> RUNNING'
            THEN 'only a running build is planned'
        WHEN step NOT IN ('QUEUED -> RUNNING', 'RUNNING -> RUNNING', 'RUNNING -> DONE', 'RUNNING -> FAILED',
                          'RUNNING -> PUBLISH_PENDING', 'PUBLISH_PENDING -> RUNNING', 'FAILED -> QUEUED',
                          'FAILED -> PUBLISH_PENDING')
            THEN step || ' is impossible'
        -- a claim counts exactly one attempt, of the kind that it is; nothing else counts any
        WHEN claimed AND (NEW.state <> 'RUNNING'
                          OR NEW.attempts <> OLD.attempts + (NOT NEW.publish_only)::integer
                          OR NEW.publish_attempts <> OLD.publish_attempts + NEW.publish_only::integer)
            THEN step || ' does not count attempts so'
        WHEN step IN ('QUEUED -> RUNNING', 'PUBLISH_PENDING -> RUNNING') AND NOT claimed
            THEN step || ' counts an attempt'
        WHEN step = 'RUNNING -> RUNNING' AND NOT claimed AND OLD.plan IS NOT DISTINCT FROM NEW.plan
            THEN 'a running build is planned, or claimed anew'
        -- whether only publication is left is decided where a build stops, and kept by whoever goes on with it
        WHEN NEW.publish_only IS DISTINCT FROM CASE NEW.state
                 WHEN 'PUBLISH_PENDING' THEN true WHEN 'QUEUED' THEN false ELSE OLD.publish_only END
            THEN step || ' does not decide what is left to do'
        WHEN step = 'FAILED -> PUBLISH_PENDING' AND NOT OLD.publish_only
            THEN 'it failed before it had anything to publish'
        WHEN (NEW.attempt_limit, NEW.publish_attempt_limit) IS DISTINCT FROM (OLD.attempt_limit, OLD.publish_attempt_limit)
             AND OLD.state <> 'FAILED'
            THEN 'only a failed run is given more attempts'
    END;
    IF wrong IS NOT NULL THEN
        RAISE check_violation USING MESSAGE = 'build run ' || OLD.run_key || ': ' || wrong;
    END IF;
    NEW.changed_at := clock_timestamp();
    RETURN NEW;
END $$"""


def upgrade() -> None:
    """Let a failed run lose its plan when it is queued again, and a running one change it for that of other code."""
    op.execute(RUN_GUARD)


def downgrade() -> None:
    """Guard plans as before."""
    guard = import_module("ofp_platform.storage.migrations.versions.0007_run_ledger").RUN_GUARD
    op.execute(guard.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
