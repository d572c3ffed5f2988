"""The correction ledger: which decisions would have had other features, had the events of a later basis been known.

A decision is first rebuilt at its recorded basis; only where that gives the recorded hash is it said what would have been
otherwise. The events of a correction are the late ones in the windows of its feature. Where a group resolves identities, links
may be late as well: then the entity would have been another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import numpy.typing as npt
import orjson

from ofp_platform.identity.entities import LinkEvent
from ofp_platform.kernel.amendments import counting_at
from ofp_platform.offline.parity.parity import BATCH, Comparer, ParityRuns, RunKey, resolution_of
from ofp_platform.offline.parity.parity_anchor import NotComparable, ParityAnchor
from ofp_platform.offline.parity.rebuilding import EvaluatedQuestions, EvaluatedRow, QuestionAt, Rebuilder
from ofp_platform.registry.calendar_windows import window_after
from ofp_platform.registry.expression import names_in, parse_expression
from ofp_platform.registry.layout import MASK_ROW, TIME_ROW, CompiledGroup, KeyLayout, Slot
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.offline.parity_record import Correction, EventRef, LinkRef
from ofp_platform.vocabulary.position import Basis, PartitionBasis
from ofp_platform.vocabulary.serving import GraphVersion
from ofp_platform.vocabulary.times import format_time

Int64s = npt.NDArray[np.int64]
FeatureWindow = tuple[int, Slot]
"""(predicate, window, delay), microseconds"""


@dataclass
class CorrectionTally:
    """Counts of decisions: compared; corrected of them; unproven: their rebuild is not what was recorded, or there
    is none. `request_id`: what the corrections are kept under."""

    request_id: str = ""
    compared_count: int = 0
    corrected_count: int = 0
    unproven_count: int = 0


@dataclass(frozen=True)
class CorrectionLedger:
    """Corrections of recorded decisions by what `later` knows, which must lie in the replay; and `later_graph` of links, None
    where there are none."""

    parity: ParityRuns
    later: Basis
    request_id: str
    later_graph: GraphVersion | None = None
    tally: CorrectionTally = field(default_factory=CorrectionTally)

    def corrections(self, anchors: Iterable[ParityAnchor]) -> Iterator[Correction]:
        """All corrections, decision by decision in the order of the anchors within a batch of one pack; the tally counts.

        Raises:
            ValueError: the replay does not hold everything that `later` knows.
        """
        comparer = Comparer(self.parity)
        for run_key in self.parity.runs:
            lacking = comparer.rebuilder(run_key).run.knowledge.lacks(self.later)
            if lacking is not None:
                raise ValueError(lacking)
        remaining_anchors = iter(anchors)
        for batch in iter(lambda: list(islice(remaining_anchors, BATCH)), []):
            questions_by_run: dict[RunKey, list[tuple[ParityAnchor, QuestionAt]]] = {}
            for anchor in batch:
                try:
                    served_snapshot = comparer.reader.read(anchor)
                    run_key, question = comparer.question(served_snapshot)
                    question_at = comparer.question_at(served_snapshot, question)
                except NotComparable:
                    self.tally.unproven_count += 1
                    continue
                questions_by_run.setdefault(run_key, []).append((anchor, question_at))
            for run_key, items in questions_by_run.items():
                yield from self._correct(comparer.rebuilder(run_key), items)

    def _correct(self, rebuilder: Rebuilder, items: list[tuple[ParityAnchor, QuestionAt]]) -> Iterator[Correction]:
        questions = [question for _, question in items]
        later_questions = [self._with_later_links(question) for question in questions]
        bounds = rebuilder.run.knowledge.bounds([question.basis for question in questions])
        end = np.maximum(bounds, rebuilder.run.knowledge.bounds([self.later])[0])
        then, later = rebuilder.evaluate(questions, bounds), rebuilder.evaluate(later_questions, end)
        changed_numbers = [
            number for number, question in enumerate(questions) if differs(then, later, number, len(question.question.keys))
        ]
        served_bytes = rebuilder.encode(questions, then)
        changed_evaluations = EvaluatedQuestions(
            [later.rows[number] for number in changed_numbers],
            [later.entity_rows[number] for number in changed_numbers],
            [then.watermarks[number] for number in changed_numbers],
        )
        corrected_bytes = dict(
            zip(
                changed_numbers,
                rebuilder.encode([later_questions[number] for number in changed_numbers], changed_evaluations),
                strict=True,
            )
        )
        for number, (anchor, question) in enumerate(items):
            before, after = served_bytes[number], corrected_bytes.get(number)
            if not isinstance(before, bytes) or sha256_hex(before) != anchor.snapshot_hash or anchor.decision_id is None:
                self.tally.unproven_count += 1
                continue
            self.tally.compared_count += 1
            if not isinstance(after, bytes):
                continue
            asked = question, later_questions[number]
            corrections = list(self._compare(rebuilder, anchor, asked, before, after, (bounds[number], end[number])))
            self.tally.corrected_count += bool(corrections)
            yield from corrections

    def _compare(
        self,
        rebuilder: Rebuilder,
        anchor: ParityAnchor,
        questions: tuple[QuestionAt, QuestionAt],
        before: bytes,
        after: bytes,
        bounds: tuple[Int64s, Int64s],
    ) -> Iterator[Correction]:
        question, later_question = questions
        key_pairs = zip(orjson.loads(before)["values"], orjson.loads(after)["values"], strict=True)
        for served_key, corrected_key in key_pairs:
            for served_group, corrected_group in zip(served_key["by_group"], corrected_key["by_group"], strict=True):
                group = rebuilder.registry.groups[served_group["group_name"], served_group["group_version"]]
                for feature, value in served_group["features"].items():
                    if corrected_group["features"][feature] == value:
                        continue
                    key = served_key["key_type"], served_key["key_id"]
                    yield Correction(
                        request_id=self.request_id,
                        decision_id=anchor.decision_id or "",
                        feature_snapshot_hash=anchor.snapshot_hash,
                        as_of_time_utc=question.question.request.as_of_time_utc,
                        key_type=KeyType(served_key["key_type"]),
                        key_id=served_key["key_id"],
                        group_name=group.name,
                        group_version=group.version,
                        feature=feature,
                        served=value,
                        corrected=corrected_group["features"][feature],
                        events=late_events(rebuilder, later_question, served_key["key_id"], group, feature, bounds),
                        links=self._late_links(question, later_question, key) if group.resolves else (),
                    )

    def _with_later_links(self, question: QuestionAt) -> QuestionAt:
        """The question as it would have been resolved, had all links been known."""
        if question.resolution is None or self.later_graph is None:
            return question
        return replace(question, resolution=resolution_of(question.question, self.later_graph, self.parity.context))

    def _late_links(self, question: QuestionAt, later_question: QuestionAt, key: tuple[str, str]) -> tuple[LinkRef, ...]:
        """The links about the entity of a key that the later graph knows, and the one of the question does not; in log order."""
        context = self.parity.context
        if context is None or question.resolution is None or self.later_graph is None:
            return ()
        version = GraphVersion.model_validate_json(question.resolution.graph_version)
        members = {*question.members_of(key), *later_question.members_of(key), key[1]}
        then, later = context.basis_of(version).by_partition(), context.basis_of(self.later_graph).by_partition()
        known = {placed.link for partition, placed in context.links if _holds(then, partition, placed.offset)}
        late: dict[LinkEvent, LinkRef] = {}
        for partition, placed in context.links:
            link = placed.link
            is_about = link.key_type == key[0] and not members.isdisjoint((link.member, link.canonical))
            is_late = _holds(later, partition, placed.offset) and link not in known and link not in late  # copies are one link
            if is_about and is_late and link.effective_ts <= question.question.as_of:
                late[link] = LinkRef(
                    event_id=placed.event_id,
                    event_type="identity_link" if link.is_link else "identity_unlink",
                    member=link.member,
                    canonical=link.canonical,
                    effective_time_utc=format_time(link.effective_ts),
                    partition_id=partition,
                    offset=placed.offset,
                )
        return tuple(late.values())


def _holds(parts: Mapping[str, PartitionBasis], partition: str, offset: int | str) -> bool:
    return partition in parts and parts[partition].contains(offset)


def late_events(
    rebuilder: Rebuilder, question: QuestionAt, key_id: str, group: CompiledGroup, feature: str, bounds: tuple[Int64s, Int64s]
) -> tuple[EventRef, ...]:
    """The events in the feature's windows, and amendments of such, that come before the later bounds and not before the earlier
    ones (int64[P])."""
    as_of = question.question.as_of
    interval = np.array([as_of - group.reach], np.int64), np.array([as_of], np.int64)
    events = rebuilder.index.entity_events(group.key_type, [question.ids_of((group.key_type, key_id), group)], *interval)
    times, masks = events.matrix[TIME_ROW], events.matrix[MASK_ROW]
    inside = np.zeros(len(times), np.bool_)
    amends = inside.copy()
    if events.amendable:
        amends = counting_at(events.matrix, as_of)
    for predicate, slot in feature_windows(group, rebuilder.registry.layouts[group.key_type], feature):
        until = as_of - slot.delay
        after = window_after(slot.calendar, slot.window, until)
        inside |= (((masks >> predicate) & 1).astype(np.bool_) | amends) & (times > after) & (times <= until)
    late = events.is_known(bounds[1]) & ~events.is_known(bounds[0])
    return rebuilder.names.refs(events, np.flatnonzero(inside & late))


def feature_windows(group: CompiledGroup, layout: KeyLayout, feature: str) -> list[FeatureWindow]:
    """The windows that a feature reads; an on-demand feature reads those of the features in its expression."""
    for compiled_feature in group.features:
        if compiled_feature.name == feature:
            operands = (
                [compiled_feature.operand]
                if compiled_feature.denominator is None
                else [compiled_feature.operand, compiled_feature.denominator]
            )
            slots = [layout.slots[operand.slot] for operand in operands]
            return [(layout.measures[slot.measure].predicate, slot) for slot in slots]
    expression = next(on_demand.expression for on_demand in group.on_demand if on_demand.name == feature)
    return [
        window for name in sorted(names_in(parse_expression(expression))[0]) for window in feature_windows(group, layout, name)
    ]


def differs(then: EvaluatedQuestions, later: EvaluatedQuestions, number: int, keys: int) -> bool:
    """Whether the kernel's results for a question differ, of a key or of its entity; values follow from them, freshness does not
    matter here."""
    for index in range(keys):
        if _is_other(then.rows[number][index], later.rows[number][index]):
            return True
        entity_then, entity_later = then.entity_rows[number][index], later.entity_rows[number][index]
        if entity_then is None or entity_later is None:
            if entity_then is not entity_later:
                return True
        elif _is_other(entity_then, entity_later):
            return True
    return False


def _is_other(then: EvaluatedRow, later: EvaluatedRow) -> bool:
    (earlier_evaluations, earlier_row), (later_evaluations, later_row) = then, later
    if earlier_evaluations.texts or later_evaluations.texts:  # ranks of two tables do not compare
        return earlier_evaluations.at(earlier_row).rows != later_evaluations.at(later_row).rows
    return not np.array_equal(
        earlier_evaluations.accumulators[earlier_row], later_evaluations.accumulators[later_row]
    ) or not np.array_equal(earlier_evaluations.distinct[earlier_row], later_evaluations.distinct[later_row])
