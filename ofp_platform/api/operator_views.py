"""Reads for whoever looks after the plane or asks why: each in bounds, none on the event loop, none with a payload."""

from __future__ import annotations

import asyncio
import pickle
import sys
from dataclasses import asdict

import orjson
import psycopg

from ofp_platform.api.explanation_process import ExplanationTask
from ofp_platform.online.plane import Plane
from ofp_platform.online.state.recorded_failures import read_failures
from ofp_platform.storage.postgres import DatabaseUnavailable
from ofp_platform.storage.transient import is_transient
from ofp_platform.vocabulary.apply_failures import ApplyFailureRow, ApplyFailures
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, not_found, unavailable
from ofp_platform.vocabulary.profile import Profile

MOST_WAITING = 4
MOST_KEPT = 64
MOST_READING = 4
_INVALID = frozenset({Reason.INVALID_FIELD, Reason.FORBIDDEN, Reason.BASIS_LOST})


class OperatorViews:
    """An OperatorPort over one database and object store. `dsn`: of a role that may read the log.

    One value is explained at a time, in a process of its own with `seconds` to live; a few more questions wait. The last
    answers are kept: a snapshot is explained for good.
    """

    def __init__(self, profile: Profile, dsn: str, *, seconds: int = 60) -> None:
        self._profile = profile
        self._dsn = dsn
        self._seconds = seconds
        self._explaining = asyncio.Lock()
        self._waiting = 0
        self._reading = asyncio.Semaphore(MOST_READING)
        self._answers: dict[tuple[str, str, str | None, str | None], bytes] = {}

    async def failures(self, after: tuple[str, str] | None, limit: int, reason: str | None) -> bytes:
        """See OperatorPort."""
        if self._reading.locked():
            raise unavailable(Reason.OVERLOADED, f"{MOST_READING} questions of operators are being answered; try again")
        async with self._reading:
            try:
                return await asyncio.to_thread(self._failures, after, limit, reason)
            except (DatabaseUnavailable, psycopg.Error) as error:
                if not is_transient(error):
                    raise
                raise unavailable(Reason.STORE_DOWN, "the database does not answer") from None

    def _failures(self, after: tuple[str, str] | None, limit: int, reason: str | None) -> bytes:
        with Plane.open_without_log(self._profile, self._dsn, max_connections=1) as plane:
            projection_id = plane.known_live().projection_id
            with plane.pool.connection() as connection:
                rows = read_failures(connection, projection_id, after=after, limit=limit + 1, reason=reason)
        page = ApplyFailures(
            projection_id=projection_id,
            failures=tuple(ApplyFailureRow.model_validate(asdict(row)) for row in rows[:limit]),
            next_after=f"{rows[limit - 1].partition_id}:{rows[limit - 1].offset}" if len(rows) > limit else None,
        )
        return page.model_dump_json().encode()

    async def explanation(self, snapshot_hash: str, feature: str, key: str | None, group: str | None) -> bytes:
        """See OperatorPort."""
        question = snapshot_hash, feature, key, group
        if (answer := self._answers.get(question)) is not None:
            return answer
        if self._waiting >= MOST_WAITING:
            raise unavailable(Reason.OVERLOADED, f"{self._waiting} questions for explanations wait; try again")
        self._waiting += 1
        try:
            async with self._explaining:
                task = ExplanationTask(self._profile, self._dsn, snapshot_hash, feature, key, group, self._seconds)
                answer = await self._explained(task)
        finally:
            self._waiting -= 1
        self._answers[question] = answer
        if len(self._answers) > MOST_KEPT:
            del self._answers[next(iter(self._answers))]
        return answer

    async def _explained(self, task: ExplanationTask) -> bytes:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "ofp_platform.api.explanation_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(self._seconds):
                output, _ = await process.communicate(pickle.dumps(task))
        except TimeoutError:
            words = (
                f"reading the log for it took more than {self._seconds} s: ask with `ofp snapshot explain {task.snapshot_hash}`"
            )
            raise unavailable(Reason.OVERLOADED, words) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise unavailable(Reason.INTERNAL, "the process that explains ended early; the log of the service says why")
        written = orjson.loads(output)
        if "refused" in written:
            raise _refusal(*written["refused"])
        return orjson.dumps(written["explanation"])


def _refusal(name: str, words: str) -> ContractError:
    reason = Reason(name)
    if reason is Reason.UNKNOWN_SNAPSHOT:
        return not_found(reason, words)
    return invalid(reason, words) if reason in _INVALID else unavailable(reason, words)
