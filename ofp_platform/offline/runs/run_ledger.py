"""The run ledger: one row per request, however often and from however many places it is submitted.

A build belongs to whoever holds the advisory lock of its run on a live connection, so the run of a killed builder can be
claimed again at once. Every claim counts an attempt, and only the attempt that runs can write: a builder that lost its
connection and does not know it yet changes nothing. Which transitions exist is held by the database (migration 0007).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from psycopg import Connection
from psycopg.rows import dict_row
from pydantic import ValidationError

from ofp_platform.offline.requests.intent_file import Intent, check_intent
from ofp_platform.offline.requests.intent_size import check_intent_size
from ofp_platform.offline.requests.policies import SHIPPED_ALONE, BuildPolicies
from ofp_platform.offline.runs.run_lease import LeaseLost, RunLease
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.offline.build_intent import intent_wire, request_id
from ofp_platform.vocabulary.offline.build_plan import BuildPlan
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused, Refusal
from ofp_platform.vocabulary.offline.build_run import BuildReceipt, BuildRun, RunState
from ofp_platform.vocabulary.profile import BuildLimits
from ofp_platform.vocabulary.times import format_time, to_micros
from ofp_platform.vocabulary.yaml_file import fault_words

logger = logging.getLogger(__name__)
_ROW = "SELECT * FROM ofp.build_run WHERE run_key = %s"
_CLAIMABLE = ("QUEUED", "PUBLISH_PENDING", "RUNNING")
_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('ofp.build_run/' || %s, 0))"
_UNLOCK = "SELECT pg_advisory_unlock(hashtextextended('ofp.build_run/' || %s, 0))"
_CLAIM = """
    UPDATE ofp.build_run SET state = 'RUNNING', attempts = attempts + (NOT publish_only)::integer,
        publish_attempts = publish_attempts + publish_only::integer,
        refusal_reason = NULL, refusal_field = NULL, refusal_message = NULL
    WHERE run_key = %s RETURNING *"""
_CANCEL = """
    UPDATE ofp.build_run SET state = 'FAILED', publish_only = false, refusal_reason = %s, refusal_field = '', refusal_message = %s
    WHERE run_key = %s RETURNING *"""
_OPEN = """
    SELECT count(*) FROM ofp.build_run
    WHERE submitted_by IS NOT DISTINCT FROM %s AND state IN ('QUEUED', 'RUNNING', 'PUBLISH_PENDING')"""
_REFUSE = """
    UPDATE ofp.build_run SET state = 'FAILED', refusal_reason = %s, refusal_field = %s, refusal_message = %s
    WHERE run_key = %s"""
_REQUEUE = """
    UPDATE ofp.build_run SET state = %(state)s, publish_only = %(publish_only)s, attempt_limit = %(limit)s,
        plan = CASE WHEN %(publish_only)s THEN plan END,
        publish_attempt_limit = %(publish_limit)s,
        refusal_reason = CASE WHEN %(publish_only)s THEN refusal_reason END,
        refusal_field = CASE WHEN %(publish_only)s THEN refusal_field END,
        refusal_message = CASE WHEN %(publish_only)s THEN refusal_message END
    WHERE run_key = %(run_key)s RETURNING *"""


class UnknownRun(Exception):
    """There is no such run in this ledger, or more than one begins so."""


class RunOfOldForm(Exception):
    """A release of another form stored the run; the text says what cannot be read, and what to do."""


class RetryRefused(Exception):
    """The run failed for a reason that does not pass by itself; the text says what to do."""


class RunLedger:
    """The ledger in one database. Safe to share between threads. `limits`: those that a new request is held to; `policies`: those
    that say how often it may be tried.
    """

    def __init__(self, pool: Pool, limits: BuildLimits | None = None, policies: BuildPolicies | None = None) -> None:
        self._pool = pool
        self._limits = limits or BuildLimits()
        self._policies = policies or SHIPPED_ALONE

    def submit(self, intent: Intent) -> BuildRun:
        """Submit a request and return its run: QUEUED if it is new, else as it stands.

        Raises:
            BuildRefused: the intent contradicts itself (see `check_intent`); BUILD_TOO_LARGE, whatever the log has;
                QUOTA_EXCEEDED, too many requests of `submitted_by` are open. Whatever needs looking up is refused on the run.
        """
        check_intent(intent)
        check_intent_size(intent, self._limits)
        run_key = request_id(intent)
        limit = self._attempts(intent)
        with self._pool.connection() as connection, connection.transaction():
            # one after the other for each principal: else many at once would all find the same room
            connection.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('ofp.principal/' || %s, 0))", (intent.submitted_by or "",)
            )
            is_stored = connection.execute("SELECT FROM ofp.build_run WHERE run_key = %s", (run_key,)).rowcount
            if not is_stored:
                _check_open_intents(connection, intent.submitted_by, self._limits.max_open_intents)
            connection.execute(
                "INSERT INTO ofp.build_run (run_key, intent_kind, intent, attempt_limit, publish_attempt_limit)"
                " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                (run_key, intent.intent, canonical_bytes(intent_wire(intent)).decode(), limit, limit),
            )
            return _read(connection, run_key)

    @contextmanager
    def claim(self, run_key: str) -> Iterator[RunLease | None]:
        """Claim a run for as long as the context lasts; None when another builder holds it, or it is DONE or FAILED.

        A context left without `succeed`, `fail` or `publish_pending` leaves the run to be claimed again: so it is with a
        builder that is killed. A run whose attempts are used up fails as ATTEMPTS_EXHAUSTED.

        Raises:
            UnknownRun: there is none.
        """
        with self._pool.connection() as connection:
            if not _flag(connection, _LOCK, run_key):
                _read(connection, run_key)
                yield None
                return
            lease = None
            try:
                run = _start(connection, run_key)
                lease = None if run is None else RunLease(connection, run)
                yield lease
            finally:
                if lease is not None:
                    lease.end()
                if not connection.closed and not connection.broken:
                    connection.execute(_UNLOCK, (run_key,))

    @contextmanager
    def claim_next(self) -> Iterator[RunLease | None]:
        """Claim the oldest run that waits, or whose builder is gone; None when there is none. See `claim`."""
        with self._pool.connection() as connection:
            waiting_rows = connection.execute(
                "SELECT run_key FROM ofp.build_run WHERE state = ANY(%s) ORDER BY run_number", (list(_CLAIMABLE),)
            ).fetchall()
        for (run_key,) in waiting_rows:
            with self.claim(run_key) as lease:
                if lease is not None:
                    yield lease
                    return
        yield None

    def cancel(self, run_key: str, actor: str, reason: str = "") -> BuildRun:
        """End a run that waits, runs or has to be published, as FAILED / CANCELLED; one that ended stays as it is.

        From then on its builder, if it has one, can write nothing and publish nothing; it sees so within seconds and stops.

        Raises:
            UnknownRun: there is none.
        """
        message = f"cancelled by {actor}{f': {reason}' if reason else ''}"
        with self._pool.connection() as connection, connection.transaction():
            run = _read(connection, run_key, lock=True)
            if run.state in (RunState.DONE, RunState.FAILED):
                return run
            with connection.cursor(row_factory=dict_row) as cursor:
                row = cursor.execute(_CANCEL, (BuildReason.CANCELLED.value, message, run_key)).fetchone()
            assert row is not None  # its row is locked
            return read_run(row)

    def is_cancelled(self, run_key: str) -> bool:
        """Whether the run was cancelled. Raises UnknownRun: there is none."""
        refusal = self.show(run_key).refusal
        return refusal is not None and refusal.reason is BuildReason.CANCELLED

    def demand_running(self, run: BuildRun) -> None:
        """Look whether an attempt is still the one that runs.

        Raises:
            LeaseLost: it is not; the text says whether the run was cancelled.
        """
        with self._pool.connection() as connection:
            now = _read(connection, run.run_key)
        if now.refusal is not None and now.refusal.reason is BuildReason.CANCELLED:
            raise LeaseLost(f"run {run.run_key}: {now.refusal.message}")
        if now.state is not RunState.RUNNING or (now.attempts, now.publish_attempts) != (run.attempts, run.publish_attempts):
            raise LeaseLost(f"run {run.run_key}: attempt {run.attempts} is over; another builder goes on, or it was finished")

    def retry(self, run_key: str) -> BuildRun:
        """Queue a failed run again whose reason may pass by itself. A run that did not fail stays as it is.

        Raises:
            RetryRefused: it failed for another reason, or its attempts are used up. UnknownRun: there is none.
        """
        with self._pool.connection() as connection, connection.transaction():
            run = _read(connection, run_key, lock=True)
            if run.state is not RunState.FAILED:
                return run
            if not run.retryable:
                assert run.refusal is not None  # a failed run has one, by constraint
                raise RetryRefused(
                    f"run {run_key} failed as {run.refusal.reason.value}, which does not pass by itself: remove the cause,"
                    " then reopen the run (`ofp intent retry`)"
                )
            return _requeue(connection, run, run.publish_only, 0)

    def reopen(self, run_key: str, *, rebuild: bool = False) -> BuildRun:
        """Give a failed run as many new attempts as its policy allows, since somebody removed the cause.

        What was built and only has to be published is not built again, unless `rebuild`; what is built again is planned anew,
        from what the log, the labels and the code are then. Any run that did not fail stays.

        Raises:
            UnknownRun: there is none.
        """
        with self._pool.connection() as connection, connection.transaction():
            run = _read(connection, run_key, lock=True)
            if run.state is not RunState.FAILED:
                return run
            return _requeue(connection, run, run.publish_only and not rebuild, self._attempts(run.intent))

    def show(self, run_key: str) -> BuildRun:
        """One run, by its key or the beginning of it (8 digits at least).

        Raises:
            UnknownRun: there is none, or more than one begins so.
        """
        with self._pool.connection() as connection:
            return _read(connection, _whole_key(connection, run_key))

    def runs(self, state: RunState | None = None, *, limit: int = 50) -> list[BuildRun]:
        """The newest runs, newest first."""
        with self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(
                "SELECT * FROM ofp.build_run WHERE %(state)s::text IS NULL OR state = %(state)s"
                " ORDER BY run_number DESC LIMIT %(limit)s",
                {"state": state, "limit": limit},
            )
            return readable_runs(cursor.fetchall())

    def receipts(self, run_key: str) -> list[BuildReceipt]:
        """The receipts of all attempts' stages, in order."""
        with self._pool.connection() as connection:
            rows = connection.execute(
                "SELECT stage, attempt, publish_attempt, content, digest, recorded_at FROM ofp.build_receipt"
                " WHERE run_key = %s ORDER BY receipt_number",
                (run_key,),
            ).fetchall()
        return [
            BuildReceipt(
                stage=stage,
                attempt=attempt,
                publish_attempt=publish_attempt,
                content=orjson.loads(content),
                digest=digest,
                recorded_at_utc=format_time(to_micros(recorded_at)),
            )
            for stage, attempt, publish_attempt, content, digest, recorded_at in rows
        ]

    def _attempts(self, intent: Intent) -> int:
        """How often a build of the intent may be tried: what its policy says; once, to be refused, without a policy."""
        try:
            return self._policies.resolve(intent.policy).max_attempts
        except BuildRefused:
            return 1


def _check_open_intents(connection: Connection[Any], submitted_by: str | None, limit: int) -> None:
    row = connection.execute(_OPEN, (submitted_by,)).fetchone()
    if row is not None and row[0] >= limit:
        raise BuildRefused(
            BuildReason.QUOTA_EXCEEDED,
            f"{row[0]} requests of {submitted_by or 'nobody in particular'} are open, builds.max_open_intents of the profile is"
            f" {limit}: wait for them, or cancel some (`ofp intent cancel`)",
        )


def _flag(connection: Connection[Any], query: str, run_key: str) -> bool:
    row = connection.execute(query, (run_key,)).fetchone()
    return row is not None and bool(row[0])


def _start(connection: Connection[Any], run_key: str) -> BuildRun | None:
    """Count an attempt, if there is one to count; the caller holds the lock of the run."""
    with connection.transaction():
        run = _read(connection, run_key, lock=True)
        if run.state.value not in _CLAIMABLE:
            return None
        used_attempts, limit = (
            (run.publish_attempts, run.publish_attempt_limit) if run.publish_only else (run.attempts, run.attempt_limit)
        )
        if used_attempts < limit:
            with connection.cursor(row_factory=dict_row) as cursor:
                row = cursor.execute(_CLAIM, (run_key,)).fetchone()
                assert row is not None  # its row is locked
                return read_run(row)
        activity = "publishing" if run.publish_only else "building"
        message = f"{activity} ended {used_attempts} times without a word: the builders were killed, or lost the database"
        connection.execute(_REFUSE, (BuildReason.ATTEMPTS_EXHAUSTED.value, "", message, run_key))
        return None


def _requeue(connection: Connection[Any], run: BuildRun, publish_only: bool, more: int) -> BuildRun:
    arguments = {
        "run_key": run.run_key,
        "state": "PUBLISH_PENDING" if publish_only else "QUEUED",
        "publish_only": publish_only,
        "limit": max(run.attempt_limit, run.attempts + more),
        "publish_limit": max(run.publish_attempt_limit, run.publish_attempts + more),
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_REQUEUE, arguments).fetchone()
    assert row is not None  # its row is locked
    return read_run(row)


def _read(connection: Connection[Any], run_key: str, *, lock: bool = False) -> BuildRun:
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_ROW + (" FOR UPDATE" if lock else ""), (run_key,)).fetchone()
    if row is None:
        raise UnknownRun(f"there is no build run {run_key[:64]!r}; `ofp intent list` shows them")
    return read_run(row)


def _whole_key(connection: Connection[Any], beginning: str) -> str:
    if len(beginning) < 8 or not set(beginning) <= set("0123456789abcdef"):
        raise UnknownRun("a run is named by its key, or by the first 8 or more of its 64 hex digits")
    rows = connection.execute("SELECT run_key FROM ofp.build_run WHERE starts_with(run_key, %s) LIMIT 2", (beginning,)).fetchall()
    if len(rows) != 1:
        problem = "no build run begins" if not rows else "more than one build run begins"
        raise UnknownRun(f"{problem} with {beginning[:64]}; `ofp intent list` shows them")
    return str(rows[0][0])


def _plan_of(text: str | None) -> tuple[BuildPlan | None, str | None]:
    """The plan of a run, or what is old about it."""
    if text is None:
        return None, None
    try:
        return BuildPlan.model_validate_json(text), None
    except ValidationError as error:
        return None, f"another release planned it, in an older form: {_first_problem(error)}"


def _first_problem(error: ValidationError) -> str:
    return fault_words(error, "the plan")[0]


def readable_runs(rows: Iterable[dict[str, Any]]) -> list[BuildRun]:
    """The runs of rows of ofp.build_run; of one that is of an older form a warning is logged, in its place."""
    runs = []
    for row in rows:
        try:
            runs.append(read_run(row))
        except RunOfOldForm as error:
            logger.warning("%s", error)
    return runs


def read_run(row: dict[str, Any]) -> BuildRun:
    """A row of ofp.build_run. A plan of an older form is left out, and said to be.

    Raises:
        RunOfOldForm: the request itself cannot be read.
    """
    try:
        return _run_of(row)
    except ValidationError as error:
        raise RunOfOldForm(
            f"run {row['run_key']} ({row['state']}) was submitted to a release of another form, and this one does not read it"
            f" ({_first_problem(error)}): submit the request again"
        ) from None


def _run_of(row: dict[str, Any]) -> BuildRun:
    plan, old_form = _plan_of(row["plan"])
    refusal = None
    if row["refusal_reason"] is not None:
        refusal = Refusal(reason=row["refusal_reason"], field=row["refusal_field"], message=row["refusal_message"])
    return BuildRun(
        run_key=row["run_key"],
        state=row["state"],
        intent=orjson.loads(row["intent"]),
        plan=plan,
        plan_digest=None if row["plan"] is None else sha256_hex(row["plan"].encode()),
        old_form=old_form,
        publish_only=row["publish_only"],
        attempts=row["attempts"],
        attempt_limit=row["attempt_limit"],
        publish_attempts=row["publish_attempts"],
        publish_attempt_limit=row["publish_attempt_limit"],
        refusal=refusal,
        outcome=None if row["outcome"] is None else orjson.loads(row["outcome"]),
        submitted_at_utc=format_time(to_micros(row["submitted_at"])),
        changed_at_utc=format_time(to_micros(row["changed_at"])),
    )
