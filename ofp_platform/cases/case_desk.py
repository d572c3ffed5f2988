"""The desk of an investigator: a case is opened, read, noted on, labelled, closed. All of it is appended; nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ofp_platform.storage.case_entries import (
    QUEUE_START,
    AppendedEntry,
    AppendOutcome,
    OfferedEntry,
    PendingLabel,
    QueuePlace,
    append_entries,
    cases_named,
    count_conflicts,
    count_pending_labels,
    pending_labels,
    queue,
    read_conflicts,
    read_timelines,
)
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.case import (
    CASE_SOURCE,
    CaseContent,
    CaseEvent,
    CaseTrigger,
    LabelAccepted,
    LabelPending,
    LabelRejected,
    StatedEvidence,
    Triggered,
    label_value,
)
from ofp_platform.vocabulary.loop.case_requests import Case, CaseReceipt, CaseSummary, LabelAsk
from ofp_platform.vocabulary.loop.case_standing import CaseState, standing_of
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.times import format_time

LABELLER = "case-desk"
"""The actor of answers of the label store."""
_LONGEST_REASON = 400


class CaseNotFound(Exception):
    """No case of the run has this id or event; the text says where to look."""


class CaseNotNow(Exception):
    """The entry cannot follow where the case stands, as closing a closed case; the text says so."""


class EntryConflict(Exception):
    """CASE_ENTRY_CONFLICT: the entry is there with other content. The first stands; both digests are kept."""


class LabelStorePort(Protocol):
    """The label store as a case needs it: an answer to one assertion."""

    def __call__(self, assertion: LabelAssertion, submitted_by: str) -> str | None:
        """Store an assertion durably, once however often it is asked. None: it is stored; else why it is refused, in words.

        Raises:
            BuildRefused: STORE_UNAVAILABLE, the store does not answer.
        """
        ...


@dataclass(frozen=True)
class QueuePage:
    """Cases of one state, the conflicts of the run, and where the next page begins; None: there is none."""

    cases: tuple[CaseSummary, ...]
    conflicts: int
    behind: QueuePlace | None


class CaseDesk:
    """Cases of one run. The pool stays the caller's. `now`: microseconds since the epoch. An action that is asked for stands in
    the case, and who acts reads it there.

    Every method raises psycopg.Error where the database does not answer; then nothing was appended.
    """

    def __init__(
        self,
        pool: Pool,
        pins: ContextPins,
        labels: LabelStorePort,
        now: Callable[[], int],
    ) -> None:
        self._pool = pool
        self._pins = pins
        self._labels = labels
        self._now = now

    def cases(self, state: CaseState, limit: int, behind: QueuePlace = QUEUE_START) -> QueuePage:
        """A page of cases of a state: the most urgent first, then those that have been open longest."""
        with self._pool.connection() as connection:
            places = queue(connection, self._pins, state, limit + 1, behind)
            timelines = read_timelines(connection, self._pins, [place.case_id for place in places[:limit]])
            conflicts = count_conflicts(connection, self._pins)
        summaries = tuple(
            CaseSummary(
                case_id=timeline.case_id,
                event_class=timeline.event.event_class,
                event_id=timeline.event.event_id,
                standing=standing_of(timeline.entries),
            )
            for timeline in timelines
        )
        return QueuePage(summaries, conflicts, places[limit - 1] if len(places) > limit else None)

    def case(self, case_id: str) -> Case:
        """One case.

        Raises:
            CaseNotFound: see there.
        """
        with self._pool.connection() as connection:
            timelines = read_timelines(connection, self._pins, [case_id])
            conflicts = read_conflicts(connection, self._pins, case_id)
        if not timelines:
            raise CaseNotFound(f"no case of run {self._pins.run_id!r} has the id {case_id}; `ofp case list` lists them")
        timeline = timelines[0]
        return Case(
            context_pins=self._pins,
            case_id=timeline.case_id,
            event_class=timeline.event.event_class,
            event_id=timeline.event.event_id,
            standing=standing_of(timeline.entries),
            timeline=timeline.entries,
            conflicts=tuple(conflicts),
        )

    def find(self, name: str) -> list[str]:
        """The ids of the cases about events of that id; else of those whose ids begin so, with 8 digits or more."""
        with self._pool.connection() as connection:
            return cases_named(connection, self._pins, name)

    def trigger(self, event: CaseEvent, trigger: CaseTrigger, source_ref: str, reason: str, actor: str) -> CaseReceipt:
        """Call attention to an event: its case is opened, or has one trigger more. `trigger`: of those that people state.

        Raises:
            EntryConflict: see there.
        """
        content = Triggered(trigger=trigger, evidence=StatedEvidence(reason=reason))
        return self._receipt(self._append(OfferedEntry(event, source_ref, self._now(), actor, content)))

    def add(self, case_id: str, content: CaseContent, source_ref: str, actor: str) -> CaseReceipt:
        """Append an entry to a case that there is.

        Raises:
            CaseNotFound | CaseNotNow | EntryConflict: see there.
        """
        return self._receipt(self._append(OfferedEntry(self._event(case_id), source_ref, self._now(), actor, content)))

    def assert_label(self, case_id: str, ask: LabelAsk, source_ref: str, actor: str) -> CaseReceipt:
        """Assert a label: LABEL_PENDING is appended first, then what the label store answers. Where it does not answer, the label
        stays pending, and `problem` of the receipt says so.

        Raises:
            CaseNotFound | EntryConflict: see there. NoSuchLabel: see there.
        """
        value = label_value(ask.label_type, ask.word)
        case = self.case(case_id)
        now, first = self._now(), _first_ask(case, source_ref)
        observed_at = ask.observed_time_utc or (format_time(now) if first is None else first.assertion.observed_time_utc)
        default_effective = observed_at if first is None else first.assertion.effective_time_utc
        assertion = LabelAssertion(
            event_class=case.event_class,
            event_id=case.event_id,
            label_type=ask.label_type,
            value=value,
            effective_time_utc=ask.effective_time_utc or default_effective,
            observed_time_utc=observed_at,
            source=CASE_SOURCE,
        )
        content = LabelPending(word=ask.word, assertion_id=assertion.assertion_id, assertion=assertion)
        event = CaseEvent(event_class=case.event_class, event_id=case.event_id)
        pending = self._append(OfferedEntry(event, source_ref, now, actor, content))
        receipt = self._receipt(pending)
        try:
            self.settle(PendingLabel(event, content, actor))
        except BuildRefused as error:
            return receipt.model_copy(update={"problem": _still_pending(error)})
        return receipt.model_copy(update={"standing": self.case(case_id).standing})

    def pending(self, limit: int) -> list[PendingLabel]:
        """The oldest labels that wait for an answer of the label store."""
        with self._pool.connection() as connection:
            return pending_labels(connection, self._pins, limit)

    def count_pending(self) -> int:
        """How many labels wait for an answer of the label store."""
        with self._pool.connection() as connection:
            return count_pending_labels(connection, self._pins)

    def settle(self, label: PendingLabel) -> bool:
        """Ask the label store for one pending label and append its answer. Whether it was accepted.

        Raises:
            BuildRefused: STORE_UNAVAILABLE; the label stays pending.
        """
        assertion_id = label.content.assertion_id
        refusal = self._labels(label.content.assertion, label.actor)
        crash_point("label.stored")
        answer: CaseContent
        if refusal is None:
            answer = LabelAccepted(assertion_id=assertion_id)
        else:
            answer = LabelRejected(assertion_id=assertion_id, reason=refusal[:_LONGEST_REASON])
        self._append(OfferedEntry(label.event, assertion_id, self._now(), LABELLER, answer))
        return refusal is None

    def _event(self, case_id: str) -> CaseEvent:
        case = self.case(case_id)
        return CaseEvent(event_class=case.event_class, event_id=case.event_id)

    def _append(self, offered: OfferedEntry) -> AppendedEntry:
        with self._pool.connection() as connection, connection.transaction():
            outcome = append_entries(connection, self._pins, [offered])[0]
        match outcome.outcome:
            case AppendOutcome.CONFLICT:
                raise EntryConflict(f"CASE_ENTRY_CONFLICT: {outcome.words}")
            case AppendOutcome.NOT_NOW:
                raise CaseNotNow(outcome.words)
            case AppendOutcome.NO_CASE:
                raise CaseNotFound(outcome.words)
        return outcome

    def _receipt(self, outcome: AppendedEntry) -> CaseReceipt:
        assert outcome.entry is not None
        assert outcome.standing is not None
        return CaseReceipt(
            case_id=outcome.case_id,
            is_new=outcome.outcome is AppendOutcome.NEW,
            entry=outcome.entry,
            standing=outcome.standing,
        )


def _first_ask(case: Case, source_ref: str) -> LabelPending | None:
    """The label that the same ask made before: times that it does not name are those of the first."""
    for entry in case.timeline:
        if entry.source_ref == source_ref and isinstance(entry.content, LabelPending):
            return entry.content
    return None


def _still_pending(error: BuildRefused) -> str:
    return f"the label store does not answer, so the label is pending ({error.message}); `ofp case settle` asks again"
