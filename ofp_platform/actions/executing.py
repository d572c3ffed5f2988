"""Doing what was wanted: authorise, claim, do, record. Whatever stops it in between, nothing is done twice and nothing is lost.

A claim is committed before anything outside happens, with the beginning of an attempt. An attempt that was begun and has no end
may have been done: its executor is asked by key before it is tried again, and where nobody can be asked, it waits for people.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from psycopg import Connection

from ofp_platform.actions.account_hold import append_holds
from ofp_platform.actions.allow_list import denial_of, executor_of
from ofp_platform.actions.ledger import (
    MOST_REASON,
    AttemptEnding,
    Claim,
    LastAttempt,
    Wait,
    are_due,
    begin_attempts,
    claim_due,
    keep_waiting,
    record_endings,
    record_outcomes,
    still_claimed,
)
from ofp_platform.actions.ports import Done, Executor, NotDone, Refused, Report, Unknown
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.storage.postgres import Pool
from ofp_platform.telemetry.event_spans import Attributes, Interval, event_spans
from ofp_platform.telemetry.trace_ids import Stage
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.action import ActionIntent, ActionOutcome, AttemptEnd, OriginKind, OutcomeKind
from ofp_platform.vocabulary.loop.action_policy import ACCOUNT_HOLD, ActionPolicy
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, format_time

logger = logging.getLogger(__name__)
MOST_INSIDE, MOST_OUTSIDE = 500, 16
"""Intents of one round: those that the plane does by itself in one transaction, and those that are on their way at once."""
_LEASE_MARGIN_US = 1_000_000
_LEASE_TIMEOUTS = 8  # connecting, writing and reading have one each


@dataclass(frozen=True)
class Round:
    """Counts of one round: intents by their outcome, those that are tried again later, and those that wait for people."""

    outcomes: Counter[OutcomeKind] = field(default_factory=Counter)
    waiting: int = 0
    for_people: int = 0

    @property
    def total(self) -> int:
        """How many intents there were."""
        return self.outcomes.total() + self.waiting + self.for_people

    def __add__(self, other: Round) -> Round:
        return Round(self.outcomes + other.outcomes, self.waiting + other.waiting, self.for_people + other.for_people)


class _Step(NamedTuple):
    """One step outside with a claimed intent: an attempt is made, or the one before is asked for. Nothing is sent after
    `send_by`, seconds of the executor's clock: a process that slept may have lost its lease.
    """

    claim: Claim
    executor: Executor
    attempt: LastAttempt
    is_question: bool
    send_by: float


@dataclass
class _Findings:
    """Everything that is recorded of some claims in one transaction."""

    endings: list[AttemptEnding] = field(default_factory=list)
    outcomes: list[tuple[int, ActionOutcome]] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)

    def round(self) -> Round:
        for_people = sum(wait.for_people for wait in self.waits)
        return Round(Counter(outcome.outcome for _, outcome in self.outcomes), len(self.waits) - for_people, for_people)


def _tell(acting: Interval, intent: ActionIntent, attempt: int, ended: str) -> None:
    """The span of an attempt, where a decision wanted it: the intent of one names the event."""
    spans, event_id = event_spans(), intent.parameters.get("event_id")
    if spans is None or intent.origin.origin_kind is not OriginKind.DECISION or not isinstance(event_id, str):
        return
    attributes: Attributes = {
        "ofp.decision_id": intent.origin.reference,
        "ofp.idempotency_key": intent.idempotency_key,
        "ofp.action_type": intent.action_type,
        "ofp.attempt": attempt,
        "ofp.outcome": ended,
    }
    spans.tell(Stage.ACT, event_id, acting, attributes)


@dataclass(frozen=True)
class ActionExecutor:
    """Does the intents of one run under one policy. `webhooks`: those of the policy, by name; `now`: microseconds; `clock`:
    seconds that never go back.
    """

    pool: Pool
    log: PostgresLog
    pins: ContextPins
    policy: ActionPolicy
    webhooks: Mapping[str, Executor]
    now: Callable[[], int]
    clock: Callable[[], float] = time.monotonic

    def run_round(self) -> Round:
        """Do what is due, at most so many as the bounds of a round say.

        Raises:
            psycopg.Error: the database does not answer. What was begun is asked for by key when it does.
            MessageRefused | LogUnsettled | StreamNotFound: the stream takes no outcome; the same.
        """
        with self.pool.connection() as connection:
            is_due_inside, is_due_outside = are_due(connection, self.pins)
        inside = self._round_inside() if is_due_inside else Round()
        return inside + self._round_outside() if is_due_outside else inside

    def _round_inside(self) -> Round:
        """Deny, or do what the plane keeps itself, in one transaction with the outcomes."""
        findings = _Findings()
        with Interval() as acting, self.pool.connection() as connection:
            with connection.transaction():
                claims = claim_due(connection, self.pins, MOST_INSIDE, 0, outside=False)
                if not claims:
                    return Round()
                at_us, holds = self.now(), []
                for claim in claims:
                    if (denial := denial_of(claim.intent, self.policy)) is not None:
                        findings.outcomes.append(self._outcome(claim, OutcomeKind.DENIED, denial, 0))
                        continue
                    holds.append(claim)
                    findings.endings.append(AttemptEnding(claim.intent_id, 1, AttemptEnd.DONE, ""))
                    findings.outcomes.append(self._outcome(claim, OutcomeKind.EXECUTED, "", 1))
                append_holds(connection, [claim.intent for claim in holds], at_us)
                begin_attempts(connection, [(claim.intent_id, 1, ACCOUNT_HOLD) for claim in holds], at_us)
                self._record(connection, findings)
            self._tell(connection, findings)
        for claim in holds:
            _tell(acting, claim.intent, 1, OutcomeKind.EXECUTED.value)
        return findings.round()

    def _round_outside(self) -> Round:
        findings = _Findings()
        with self.pool.connection() as connection:
            with connection.transaction():
                steps = self._begin(connection, findings)
                self._record(connection, findings)
            if findings.outcomes:
                self._tell(connection, findings)
            if not steps:
                return findings.round()
        crash_point("action.claimed")
        with ThreadPoolExecutor(len(steps)) as threads:
            reports = list(threads.map(self._act, steps))
        later = _Findings()
        with self.pool.connection() as connection:
            with connection.transaction():
                held_ids = still_claimed(connection, [step.claim for step in steps])
                for step, report in zip(steps, reports, strict=True):
                    if step.claim.intent_id in held_ids:
                        self._conclude(later, step, report)
                    else:
                        logger.warning("intent %s: its lease was over before its end", step.claim.intent.idempotency_key)
                self._record(connection, later)
            self._tell(connection, later)
        return findings.round() + later.round()

    def _act(self, step: _Step) -> Report:
        """Do it, or ask for it. An executor that fails in an unforeseen way has not said whether it was done."""
        key = step.claim.intent.idempotency_key
        if self.clock() > step.send_by:
            asks = "not asked" if step.is_question else "not sent"
            return (Unknown if step.is_question else NotDone)(f"{asks}: the process slept, and its lease may be over")
        try:
            with Interval() as acting:
                report: Report = step.executor.find(key) if step.is_question else step.executor.execute(step.claim.intent)
        except Exception as error:
            logger.exception("the executor of intent %s failed", key)
            report = Unknown(f"the executor failed: {type(error).__name__}")
        _tell(acting, step.claim.intent, step.attempt.number, type(report).__name__)
        crash_point("action.done")
        return report

    def _begin(self, connection: Connection[Any], findings: _Findings) -> list[_Step]:
        """Claim what is due, begin an attempt at each or take up the one that is unknown, and conclude the others."""
        lease_us = _LEASE_MARGIN_US + _LEASE_TIMEOUTS * self.policy.longest_timeout_ms * 1_000
        send_by = self.clock() + lease_us / 2 / MICROS_PER_SECOND
        steps: list[_Step] = []
        for claim in claim_due(connection, self.pins, MOST_OUTSIDE, lease_us, outside=True):
            last, executor = claim.last, self.webhooks.get(executor_of(claim.intent, self.webhooks))
            if last is not None and not last.has_ended:
                if executor is not None and executor.can_find:
                    steps.append(_Step(claim, executor, last, True, send_by))
                else:
                    reason = f"attempt {last.number} was begun and has no end, and {last.executor} cannot be asked"
                    findings.waits.append(Wait(claim.intent_id, 0, claim.questions, True, reason))
                continue
            denial = denial_of(claim.intent, self.policy)
            if denial is not None or executor is None:
                reason = denial or f"NO_EXECUTOR: {claim.intent.scope} is not open here"
                findings.outcomes.append(self._outcome(claim, OutcomeKind.DENIED, reason, claim.attempts))
            elif claim.attempts >= self.policy.attempts.most:
                findings.outcomes.append(self._outcome(claim, OutcomeKind.FAILED, "no attempt is left", claim.attempts))
            else:
                attempt = LastAttempt(claim.attempts + 1, claim.intent.scope, has_ended=False)
                steps.append(_Step(claim, executor, attempt, False, send_by))
        beginnings = [
            (step.claim.intent_id, step.attempt.number, step.attempt.executor) for step in steps if not step.is_question
        ]
        begin_attempts(connection, beginnings, self.now())
        return steps

    def _conclude(self, findings: _Findings, step: _Step, report: Report) -> None:
        """Add what follows from a report about an attempt."""
        claim, number = step.claim, step.attempt.number
        if isinstance(report, Unknown):
            questions = claim.questions + step.is_question
            for_people = not step.executor.can_find or questions >= self.policy.attempts.most
            pause_us = self.policy.attempts.pause_us(questions + 1)
            findings.waits.append(Wait(claim.intent_id, pause_us, questions, for_people, report.reason))
            return
        state = {Done: AttemptEnd.DONE, NotDone: AttemptEnd.NOT_DONE, Refused: AttemptEnd.REFUSED}[type(report)]
        findings.endings.append(AttemptEnding(claim.intent_id, number, state, report.reason))
        if isinstance(report, Done):
            findings.outcomes.append(self._outcome(claim, OutcomeKind.EXECUTED, report.reason, number))
        elif isinstance(report, Refused):
            findings.outcomes.append(self._outcome(claim, OutcomeKind.FAILED, f"refused: {report.reason}", number))
        elif number >= self.policy.attempts.most:
            reason = f"not done in {number} attempts, the last: {report.reason}"
            findings.outcomes.append(self._outcome(claim, OutcomeKind.FAILED, reason, number))
        else:
            findings.waits.append(Wait(claim.intent_id, self.policy.attempts.pause_us(number), 0, False, report.reason))

    def _outcome(self, claim: Claim, kind: OutcomeKind, reason: str, attempts: int) -> tuple[int, ActionOutcome]:
        outcome = ActionOutcome(
            context_pins=self.pins,
            idempotency_key=claim.intent.idempotency_key,
            outcome=kind,
            attempts=attempts,
            reason=reason[:MOST_REASON],
            executor=executor_of(claim.intent, self.policy.webhooks),
            action_policy_rev=self.policy.rev,
            at_utc=format_time(self.now()),
        )
        return claim.intent_id, outcome

    def _record(self, connection: Connection[Any], findings: _Findings) -> None:
        record_endings(connection, findings.endings, self.now())
        keep_waiting(connection, findings.waits)
        record_outcomes(connection, self.log, findings.outcomes)

    def _tell(self, connection: Connection[Any], findings: _Findings) -> None:
        crash_point("action.recorded")
        if findings.outcomes:
            self.log.tell(connection)


def run_until_done(executor: ActionExecutor, on_round: Callable[[Round], None]) -> Round:
    """Rounds until nothing is due; all of them together. It ends: pauses grow, attempts and questions are bounded."""
    total = Round()
    while (latest := executor.run_round()).total:
        on_round(latest)
        total += latest
    return total
