"""The lease of one attempt at one build: its holder may write as long as the attempt is the running one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import psycopg
from psycopg import Connection

from ofp_platform.storage.transient import is_transient
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.offline.build_plan import BuildPlan
from ofp_platform.vocabulary.offline.build_refusal import RETRYABLE, BuildReason, Refusal
from ofp_platform.vocabulary.offline.build_run import BuildRun

_RUNS = " WHERE run_key = %(run_key)s AND state = 'RUNNING' AND (attempts, publish_attempts) = (%(attempt)s, %(publish)s)"


class LeaseLost(Exception):
    """The attempt is no longer the one that runs: its connection ended, or another builder goes on. Nothing was written."""


class ReceiptConflict(Exception):
    """A stage recorded something else before in the same attempt."""


class RunLease:
    """Held from `RunLedger.claim`. `run` is the run as it was claimed; `publish_only`: everything is built already.

    Every method raises `LeaseLost` when the attempt is not the running one any more; the holder stops then.
    """

    def __init__(self, connection: Connection[Any], run: BuildRun) -> None:
        self._connection = connection
        self._is_ended = False
        self.run = run

    @property
    def run_key(self) -> str:
        """The key of the run."""
        return self.run.run_key

    @property
    def publish_only(self) -> bool:
        """Whether everything is built: the holder publishes, and neither replays nor computes."""
        return self.run.publish_only

    def end(self) -> None:
        """End the lease: the context of the claim was left, and its connection is somebody else's now."""
        self._is_ended = True

    def store_plan(self, plan: BuildPlan) -> BuildPlan:
        """Store the plan. Returns the stored one, an earlier attempt's when that was first: build by that.

        A plan that other code made (another `ofs_code_release_id`) is replaced: this code builds, and a manifest names it.

        Raises:
            ValueError: the plan is of another request.
        """
        if plan.request_id != self.run_key:
            raise ValueError(f"the plan is of request {plan.request_id}, the run is {self.run_key}")
        text = canonical_bytes(plan.wire()).decode()
        self._write(
            "UPDATE ofp.build_run SET plan = %(plan)s" + _RUNS + " AND (plan IS NULL"
            " OR plan::jsonb ->> 'ofs_code_release_id' <> %(release)s)",
            {"plan": text, "release": plan.ofs_code_release_id},
            may_miss=True,
        )
        stored_row = self._write("SELECT plan FROM ofp.build_run" + _RUNS + " FOR SHARE", {})
        return BuildPlan.model_validate(orjson.loads(stored_row[0]))

    def record_receipt(self, stage: str, content: dict[str, Any]) -> str:
        """Record what a stage did, in the integers-only profile of canonical JSON. Returns its digest. Idempotent.

        Raises:
            ReceiptConflict: the stage recorded another content in this attempt.
        """
        data = canonical_bytes(content)
        digest = sha256_hex(data)
        arguments = {"stage": stage, "content": data.decode(), "digest": digest}
        self._write(
            "INSERT INTO ofp.build_receipt (run_key, attempt, publish_attempt, stage, content, digest)"
            " VALUES (%(run_key)s, %(attempt)s, %(publish)s, %(stage)s, %(content)s, %(digest)s) ON CONFLICT DO NOTHING",
            arguments,
            may_miss=True,
        )
        stored_row = self._write(
            "SELECT digest FROM ofp.build_receipt WHERE stage = %(stage)s AND run_key = %(run_key)s"
            " AND (attempt, publish_attempt) = (%(attempt)s, %(publish)s)",
            arguments,
        )
        if stored_row[0] != digest:
            raise ReceiptConflict(f"run {self.run_key}: stage {stage} recorded another receipt in this attempt")
        return digest

    @contextmanager
    def running(self) -> Iterator[None]:
        """A transaction in which the attempt stays the running one: whoever cancels the run waits for its end."""
        with self._connection.transaction():
            self._write("SELECT run_key FROM ofp.build_run" + _RUNS + " FOR UPDATE", {})
            yield

    def succeed(self, outcome: dict[str, Any]) -> None:
        """End the run as DONE, for good, with its outcome in the integers-only profile. The run has a plan by now."""
        text = canonical_bytes(outcome).decode()
        self._write("UPDATE ofp.build_run SET state = 'DONE', outcome = %(outcome)s" + _RUNS + _ROW, {"outcome": text})

    def fail(self, refusal: Refusal) -> None:
        """End the run as FAILED; as ATTEMPTS_EXHAUSTED when the reason may pass by itself but no attempt is left."""
        self._refuse("FAILED", self._final(refusal) if refusal.reason in RETRYABLE else refusal, "publish_only")

    def publish_pending(self, refusal: Refusal) -> None:
        """Leave the run as PUBLISH_PENDING: everything is built and has receipts, and only publication failed.

        A publish-only attempt that was the last one fails as ATTEMPTS_EXHAUSTED.
        """
        if self.publish_only and self._used_up:
            self._refuse("FAILED", self._final(refusal), "publish_only")
        else:
            self._refuse("PUBLISH_PENDING", refusal, "true")

    @property
    def _used_up(self) -> bool:
        run = self.run
        if run.publish_only:
            return run.publish_attempts >= run.publish_attempt_limit
        return run.attempts >= run.attempt_limit

    def _final(self, refusal: Refusal) -> Refusal:
        if not self._used_up:
            return refusal
        count = self.run.publish_attempts if self.publish_only else self.run.attempts
        return Refusal(
            reason=BuildReason.ATTEMPTS_EXHAUSTED,
            field=refusal.field,
            message=f"{count} attempts; the last: {refusal.reason.value}: {refusal.message}",
        )

    def _refuse(self, state: str, refusal: Refusal, publish_only: str) -> None:
        self.record_receipt("refusal", refusal.model_dump(mode="json"))
        self._write(
            f"UPDATE ofp.build_run SET state = %(state)s, publish_only = {publish_only}, refusal_reason = %(reason)s,"
            " refusal_field = %(field)s, refusal_message = %(message)s" + _RUNS + _ROW,
            {"state": state, **refusal.model_dump(mode="json")},
        )

    def _write(self, query: str, arguments: dict[str, Any], *, may_miss: bool = False) -> tuple[Any, ...]:
        """Execute a statement on the connection that holds the lock, and return its row. No row: the attempt is over."""
        run = self.run
        if self._is_ended:
            raise LeaseLost(f"run {run.run_key}: the claim of attempt {run.attempts} was given back")
        parameters = {"run_key": run.run_key, "attempt": run.attempts, "publish": run.publish_attempts, **arguments}
        try:
            cursor = self._connection.execute(query, parameters)
            row = cursor.fetchone() if cursor.description else None
        except psycopg.errors.CheckViolation as error:
            if "receipts are recorded by the attempt that runs" in str(error):
                raise LeaseLost(f"run {run.run_key}: attempt {run.attempts} is over") from error
            raise
        except psycopg.Error as error:
            if not is_transient(error):
                raise
            raise LeaseLost(f"run {run.run_key}: the connection that held it ended: {error}") from error
        if row is None and not may_miss:
            raise LeaseLost(
                f"run {run.run_key}: attempt {run.attempts} is over; another builder goes on, or it was finished or cancelled"
            )
        return row or ()


_ROW = " RETURNING run_key"
