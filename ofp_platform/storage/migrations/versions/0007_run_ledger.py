"""The run ledger of builds: one row per request, transitions guarded here, and the receipts of each stage."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

RUN = """
CREATE TABLE ofp.build_run (
    run_number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    run_key text PRIMARY KEY CHECK (run_key ~ '^[0-9a-f]{64}$'),
    intent_kind text NOT NULL,
    intent text NOT NULL,
    submitted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    state text NOT NULL DEFAULT 'QUEUED'
        CHECK (state IN ('QUEUED', 'RUNNING', 'DONE', 'FAILED', 'PUBLISH_PENDING')),
    plan text,
    publish_only boolean NOT NULL DEFAULT false,
    attempts integer NOT NULL DEFAULT 0,
    publish_attempts integer NOT NULL DEFAULT 0,
    attempt_limit integer NOT NULL,
    publish_attempt_limit integer NOT NULL,
    refusal_reason text,
    refusal_field text,
    refusal_message text,
    outcome text,
    CONSTRAINT attempts_are_bounded CHECK (attempts BETWEEN 0 AND attempt_limit),
    CONSTRAINT publish_attempts_are_bounded CHECK (publish_attempts BETWEEN 0 AND publish_attempt_limit),
    CONSTRAINT a_refusal_is_whole CHECK (num_nulls(refusal_reason, refusal_field, refusal_message) IN (0, 3)),
    CONSTRAINT what_waits_or_failed_says_why
        CHECK ((state IN ('FAILED', 'PUBLISH_PENDING')) = (refusal_reason IS NOT NULL)),
    CONSTRAINT what_is_done_has_an_outcome CHECK ((state = 'DONE') = (outcome IS NOT NULL)),
    CONSTRAINT what_is_done_or_to_be_published_was_planned
        CHECK (plan IS NOT NULL OR NOT (state IN ('DONE', 'PUBLISH_PENDING') OR publish_only))
)"""

RUN_GUARD = """
CREATE FUNCTION ofp.guard_build_run() RETURNS trigger LANGUAGE plpgsql AS $$
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
        WHEN OLD.plan IS NOT NULL AND NEW.plan IS DISTINCT FROM OLD.plan
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

RECEIPT = """
CREATE TABLE ofp.build_receipt (
    receipt_number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    run_key text NOT NULL REFERENCES ofp.build_run,
    attempt integer NOT NULL,
    publish_attempt integer NOT NULL,
    stage text NOT NULL CHECK (stage <> ''),
    content text NOT NULL,
    digest text NOT NULL CHECK (digest = encode(sha256(convert_to(content, 'UTF8')), 'hex')),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_key, attempt, publish_attempt, stage)
)"""

RECEIPT_GUARD = """
CREATE FUNCTION ofp.guard_build_receipt() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    run ofp.build_run;
BEGIN
    SELECT * INTO run FROM ofp.build_run WHERE run_key = NEW.run_key FOR SHARE;
    IF run.state IS DISTINCT FROM 'RUNNING'
       OR (NEW.attempt, NEW.publish_attempt) IS DISTINCT FROM (run.attempts, run.publish_attempts) THEN
        RAISE check_violation
            USING MESSAGE = 'build run ' || NEW.run_key || ': receipts are recorded by the attempt that runs';
    END IF;
    RETURN NEW;
END $$"""

APPEND_ONLY = """
CREATE FUNCTION ofp.refuse_build_rewrite() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE check_violation USING MESSAGE = TG_OP || ' is refused on ofp.' || TG_TABLE_NAME || ': nothing in it is taken back';
END $$"""

TRIGGERS = (
    "CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON ofp.build_run FOR EACH ROW EXECUTE FUNCTION ofp.guard_build_run()",
    "CREATE TRIGGER no_truncate BEFORE TRUNCATE ON ofp.build_run EXECUTE FUNCTION ofp.refuse_build_rewrite()",
    "CREATE TRIGGER guard BEFORE INSERT ON ofp.build_receipt FOR EACH ROW EXECUTE FUNCTION ofp.guard_build_receipt()",
    "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ofp.build_receipt"
    " EXECUTE FUNCTION ofp.refuse_build_rewrite()",
)


def upgrade() -> None:
    """Create the ledger."""
    op.execute(RUN)
    op.execute("CREATE INDEX build_run_state ON ofp.build_run (state, run_number)")
    op.execute(RUN_GUARD)
    op.execute(RECEIPT)
    op.execute(RECEIPT_GUARD)
    op.execute(APPEND_ONLY)
    for trigger in TRIGGERS:
        op.execute(trigger)


def downgrade() -> None:
    """Drop the ledger and everything in it."""
    op.execute("DROP TABLE ofp.build_receipt, ofp.build_run")
    op.execute("DROP FUNCTION ofp.guard_build_run, ofp.guard_build_receipt, ofp.refuse_build_rewrite")
