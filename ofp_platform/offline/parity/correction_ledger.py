"""The correction ledger: which decisions would have had other features, had the events of a later basis been known.

A decision is first rebuilt at its recorded basis; only where that gives the recorded hash is it said what would have been
otherwise. The events of a correction are the late ones in the windows of its feature.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt
import orjson

from ofp_platform.offline.parity.parity import BATCH, Comparer, ParityRuns, RunKey
from ofp_platform.offline.parity.parity_anchor import NotComparable, ParityAnchor
from ofp_platform.offline.parity.rebuilding import Found, QuestionAt, Rebuilder
from ofp_platform.registry.expression import names_in, parse_expression
from ofp_platform.registry.layout import CompiledGroup, KeyLayout
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.offline.parity_record import Correction, EventRef
from ofp_platform.vocabulary.position import Basis

Int64s = npt.NDArray[np.int64]
Span = tuple[int, int, int]
"""(predicate, window, delay), microseconds"""


@dataclass
class CorrectionTally:
    """What became of the decisions: `compared`; `corrected` of them; `unproven`: their rebuild is not what was recorded, or
    there is none; `unservable`: the later basis gives a value that cannot be served."""

    compared: int = 0
    corrected: int = 0
    unproven: int = 0
    unservable: int = 0


@dataclass(frozen=True)
class CorrectionLedger:
    """Corrections of recorded decisions by what `later` knows; `later` must lie in the replay."""

    parity: ParityRuns
    later: Basis
    request_id: str
    tally: CorrectionTally = field(default_factory=CorrectionTally)

    def corrections(self, anchors: Iterable[ParityAnchor]) -> Iterator[Correction]:
        """All corrections, decision by decision in the order of the anchors within a batch of one pack; the tally counts.

        Raises:
            ValueError: the replay does not hold everything that `later` knows.
        """
        comparer = Comparer(self.parity)
        for key in self.parity.runs:
            lacking = comparer.rebuilder(key).run.knowledge.lacks(self.later)
            if lacking is not None:
                raise ValueError(lacking)
        waiting = iter(anchors)
        for batch in iter(lambda: list(islice(waiting, BATCH)), []):
            asked: dict[RunKey, list[tuple[ParityAnchor, QuestionAt]]] = {}
            for anchor in batch:
                try:
                    served = comparer.reader.read(anchor)
                    key, question = comparer.question(served)
                except NotComparable:
                    self.tally.unproven += 1
                    continue
                asked.setdefault(key, []).append((anchor, QuestionAt(question, served.basis, served.text)))
            for key, items in asked.items():
                yield from self._correct(comparer.rebuilder(key), items)

    def _correct(self, rebuilder: Rebuilder, items: list[tuple[ParityAnchor, QuestionAt]]) -> Iterator[Correction]:
        asked = [one for _, one in items]
        bounds = rebuilder.run.knowledge.bounds([one.basis for one in asked])
        end = np.maximum(bounds, rebuilder.run.knowledge.bounds([self.later])[0])
        then, later = rebuilder.evaluate(asked, bounds), rebuilder.evaluate(asked, end)
        changed = [number for number, one in enumerate(asked) if _differs(then, later, number, len(one.question.keys))]
        served = rebuilder.encode(asked, then)
        chosen = Found([later.rows[number] for number in changed], [then.watermarks[number] for number in changed])
        corrected = dict(zip(changed, rebuilder.encode([asked[number] for number in changed], chosen), strict=True))
        for number, (anchor, one) in enumerate(items):
            before, after = served[number], corrected.get(number)
            if not isinstance(before, bytes) or sha256_hex(before) != anchor.snapshot_hash or anchor.decision_id is None:
                self.tally.unproven += 1
                continue
            self.tally.compared += 1
            if after is None:
                continue
            if not isinstance(after, bytes):
                self.tally.unservable += 1
                continue
            found = list(self._compare(rebuilder, anchor, one, before, after, (bounds[number], end[number])))
            self.tally.corrected += bool(found)
            yield from found

    def _compare(
        self,
        rebuilder: Rebuilder,
        anchor: ParityAnchor,
        asked: QuestionAt,
        before: bytes,
        after: bytes,
        bounds: tuple[Int64s, Int64s],
    ) -> Iterator[Correction]:
        keys = zip(orjson.loads(before)["values"], orjson.loads(after)["values"], strict=True)
        for served_key, corrected_key in keys:
            for served, corrected in zip(served_key["by_group"], corrected_key["by_group"], strict=True):
                group = rebuilder.registry.groups[served["group_name"], served["group_version"]]
                for feature, value in served["features"].items():
                    if corrected["features"][feature] == value:
                        continue
                    yield Correction(
                        request_id=self.request_id,
                        decision_id=anchor.decision_id or "",
                        feature_snapshot_hash=anchor.snapshot_hash,
                        as_of_time_utc=asked.question.request.as_of_time_utc,
                        key_type=KeyType(served_key["key_type"]),
                        key_id=served_key["key_id"],
                        group_name=group.name,
                        group_version=group.version,
                        feature=feature,
                        served=value,
                        corrected=corrected["features"][feature],
                        events=late_events(rebuilder, asked, served_key["key_id"], group, feature, bounds),
                    )


def late_events(
    rebuilder: Rebuilder, asked: QuestionAt, key_id: str, group: CompiledGroup, feature: str, bounds: tuple[Int64s, Int64s]
) -> tuple[EventRef, ...]:
    """The events in the feature's windows that come before the later bounds and not before the earlier ones (int64[P])."""
    as_of = asked.question.as_of
    span = np.array([as_of - group.reach], np.int64), np.array([as_of], np.int64)
    events = rebuilder.index.events(group.key_type, [key_id], *span)
    times, masks = events.matrix[0], events.matrix[1]
    inside = np.zeros(len(times), np.bool_)
    for predicate, window, delay in feature_spans(group, rebuilder.registry.layouts[group.key_type], feature):
        until = as_of - delay
        inside |= ((masks >> predicate) & 1).astype(np.bool_) & (times > until - window) & (times <= until)
    late = events.known(bounds[1]) & ~events.known(bounds[0])
    return rebuilder.names.refs(events, np.flatnonzero(inside & late))


def feature_spans(group: CompiledGroup, layout: KeyLayout, feature: str) -> list[Span]:
    """What a feature reads; an on-demand feature reads what the features of its expression do."""
    for plan in group.features:
        if plan.name == feature:
            operands = [plan.operand] if plan.denominator is None else [plan.operand, plan.denominator]
            slots = [layout.slots[operand.slot] for operand in operands]
            return [(layout.measures[slot.measure].predicate, slot.window, slot.delay) for slot in slots]
    expression = next(one.expression for one in group.on_demand if one.name == feature)
    return [span for name in sorted(names_in(parse_expression(expression))[0]) for span in feature_spans(group, layout, name)]


def _differs(then: Found, later: Found, number: int, keys: int) -> bool:
    """Whether the kernel found anything else for a question; values follow from this, freshness does not matter here."""
    for place in range(keys):
        (one, row), (other, other_row) = then.rows[number][place], later.rows[number][place]
        if not np.array_equal(one.accumulators[row], other.accumulators[other_row]):
            return True
        if not np.array_equal(one.distinct[row], other.distinct[other_row]):
            return True
    return False
