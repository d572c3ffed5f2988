"""Parity: what was served against its rebuild from the log, in batches. Equal hashes decide, and nothing else does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context
from typing import Any, NamedTuple

from ofp_platform.offline.parity.mismatch import Mismatch, describe
from ofp_platform.offline.parity.parity_anchor import AnchorReader, NotComparable, ParityAnchor, ServedSnapshot
from ofp_platform.offline.parity.rebuilding import QuestionAt, Rebuilder, ReplayedRun
from ofp_platform.registry.question import Question, check_context, check_request
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.parity_record import ParityOutcome, ParityRecord, UncheckableReason
from ofp_platform.vocabulary.profile import Limits
from ofp_platform.vocabulary.serving import GroupRef

BATCH = 2_048
_KEPT = 65_536
_ANYTHING = Limits(max_keys=2**31, max_groups=2**31, max_request_context_fields=2**31)
RunKey = tuple[str, str]
"""(registry digest, run config digest)"""


@dataclass(frozen=True)
class ParityRuns:
    """What snapshots of one run can be compared with: its replay, folded under each pack and run config."""

    stream_name: str
    pins: ContextPins
    runs: Mapping[RunKey, ReplayedRun]


class Compared(NamedTuple):
    """One comparison. `rebuilt`: the hashed bytes of the rebuild where they differ, or why there is none (a text)."""

    rebuilt_hash: str | None = None
    reason: UncheckableReason | None = None
    detail: str | None = None
    as_of: str | None = None
    groups: tuple[tuple[str, str], ...] = ()
    rebuilt: bytes | str | None = None


class Comparer:
    """Compares batches. Not safe for threads."""

    def __init__(self, parity: ParityRuns) -> None:
        self.parity = parity
        self.reader = AnchorReader()
        self._pins = parity.pins  # the object that the reader gives for these pins, once it was seen to be equal
        self._rebuilders: dict[RunKey, Rebuilder] = {}
        self._lacking: dict[tuple[RunKey, str], str | None] = {}
        self._shapes: dict[tuple[RunKey, tuple[tuple[str, str], ...], tuple[str, ...]], Question] = {}

    def rebuilder(self, key: RunKey) -> Rebuilder:
        """Of one pack and run config."""
        found = self._rebuilders.get(key)
        if found is None:
            found = self._rebuilders[key] = Rebuilder(self.parity.runs[key])
        return found

    def compare(self, anchors: Iterable[ParityAnchor]) -> list[Compared]:
        """One comparison per anchor, in their order."""
        results: list[Compared] = []
        asked: dict[RunKey, list[tuple[int, ParityAnchor, QuestionAt]]] = {}
        for number, anchor in enumerate(anchors):
            served: ServedSnapshot | None = None
            try:
                served = self.reader.read(anchor)
                key, question = self.question(served)
            except NotComparable as error:
                results.append(Compared(None, error.reason, error.detail, *_asked(served)))
                continue
            results.append(Compared(None, None, None, *_asked(served)))
            asked.setdefault(key, []).append((number, anchor, QuestionAt(question, served.basis, served.text)))
        for key, items in asked.items():
            made = self.rebuilder(key).hashed([one for _, _, one in items])
            for (number, anchor, _), hashed in zip(items, made, strict=True):
                if isinstance(hashed, ContractError):
                    results[number] = results[number]._replace(rebuilt=hashed.message)
                    continue
                digest = sha256_hex(hashed)
                equal = digest == anchor.snapshot_hash
                results[number] = results[number]._replace(rebuilt_hash=digest, rebuilt=None if equal else hashed)
        return results

    def question(self, served: ServedSnapshot) -> tuple[RunKey, Question]:
        """What to ask of which run.

        Raises:
            NotComparable: this replay cannot answer it.
        """
        parity, pins = self.parity, served.plain.context_pins
        if served.basis.stream_name != parity.stream_name:
            raise NotComparable(UncheckableReason.ANOTHER_STREAM, f"it was served from stream {served.basis.stream_name}")
        if pins is not self._pins:
            if pins != parity.pins:
                raise NotComparable(UncheckableReason.ANOTHER_RUN, f"it was served for run {pins.run_id} and its pins")
            self._pins = pins
        if served.graph_version is not None:
            text = f"it used version {served.graph_version} of the identity graph, which no rebuild can consult"
            raise NotComparable(UncheckableReason.GRAPH_VERSION_UNKNOWN, text)
        key = (served.registry_digest, served.run_config_digest)
        if key not in parity.runs:
            if all(registry != key[0] for registry, _ in parity.runs):
                raise NotComparable(UncheckableReason.REGISTRY_MISSING, f"no pack of digest {key[0]} is at hand")
            raise NotComparable(UncheckableReason.RUN_CONFIG_UNKNOWN, f"the policies of run config {key[1]} are not known here")
        lacking = self._lacks(key, served)
        if lacking is not None:
            raise NotComparable(UncheckableReason.BASIS_BEYOND_REPLAY, lacking)
        try:
            return key, self._checked(key, served)
        except ContractError as error:
            unknown = error.reason is Reason.UNKNOWN_GROUP_VERSION
            reason = UncheckableReason.GROUP_VERSION_MISSING if unknown else UncheckableReason.PROVENANCE_INCOMPLETE
            raise NotComparable(reason, error.message) from None

    def _lacks(self, key: RunKey, served: ServedSnapshot) -> str | None:
        if (key, served.text) not in self._lacking:
            if len(self._lacking) > _KEPT:
                self._lacking.clear()
            self._lacking[key, served.text] = self.rebuilder(key).run.knowledge.lacks(served.basis)
        return self._lacking[key, served.text]

    def _checked(self, key: RunKey, served: ServedSnapshot) -> Question:
        """As `check_request`; of questions for the same groups and key types, what does not depend on the keys is kept."""
        shape = (key, served.names, tuple([key_type for key_type, _ in served.keys]))
        known = self._shapes.get(shape)
        if known is None or len(set(served.keys)) != len(served.keys):
            if len(self._shapes) > _KEPT:
                self._shapes.clear()
            registry = self.rebuilder(key).registry
            known = self._shapes[shape] = check_request(served.request, registry, self.parity.pins, _ANYTHING)
        context = check_context(served.plain.request_context, known.groups, _ANYTHING, self.parity.pins)
        return Question(served.plain, served.as_of, served.keys, known.groups, known.groups_of, context)


def _asked(served: ServedSnapshot | None) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    if served is None:
        return None, ()
    return served.plain.as_of_time_utc, served.names


def compare_all(
    anchors: Iterable[ParityAnchor],
    parity: ParityRuns,
    request_id: str,
    hashed_of: Callable[[str], dict[str, Any]],
    *,
    workers: int = 1,
) -> Iterator[ParityRecord]:
    """Compare every anchor; the records come in the order of the anchors, and only a few batches are held at once.

    Args:
        hashed_of: the stored `hashed` object of a snapshot, asked only for what differs; raises SnapshotMissing or
            SnapshotDamaged.
        workers: processes; 1 is this one.
    """
    comparer = Comparer(parity)
    telling = _Telling(comparer, request_id, hashed_of)
    waiting = iter(anchors)
    batches = iter(lambda: list(islice(waiting, BATCH)), [])
    if workers == 1:
        for batch in batches:
            yield from telling.records(batch, comparer.compare(batch))
        return
    for key in parity.runs:
        rebuilder = comparer.rebuilder(key)
        rebuilder.index.prepare(rebuilder.registry.layouts, workers)
    context = get_context("spawn")  # a fork would take the threads' locks of this process with it
    with ProcessPoolExecutor(workers, context, _start_worker, (parity,)) as pool:
        under_way: deque[tuple[list[ParityAnchor], Future[list[Compared]]]] = deque()
        for batch in batches:
            under_way.append((batch, pool.submit(_compare_in_worker, batch)))
            if len(under_way) > 2 * workers:
                first, future = under_way.popleft()
                yield from telling.records(first, future.result())
        while under_way:
            first, future = under_way.popleft()
            yield from telling.records(first, future.result())


_worker: list[Comparer] = []


def _start_worker(parity: ParityRuns) -> None:
    _worker.append(Comparer(parity))


def _compare_in_worker(batch: list[ParityAnchor]) -> list[Compared]:
    return _worker[0].compare(batch)


@dataclass(frozen=True)
class _Telling:
    """Makes records of comparisons."""

    comparer: Comparer
    request_id: str
    hashed_of: Callable[[str], dict[str, Any]]

    def records(self, anchors: list[ParityAnchor], compared: list[Compared]) -> Iterator[ParityRecord]:
        for anchor, one in zip(anchors, compared, strict=True):
            outcome, found = ParityOutcome.MATCH, Mismatch(None, one.detail)
            if one.reason is not None:
                outcome = ParityOutcome.UNCHECKABLE
            elif one.rebuilt_hash != anchor.snapshot_hash:
                outcome, found = ParityOutcome.MISMATCH, self._describe(anchor, one)
            yield ParityRecord(
                request_id=self.request_id,
                decision_id=anchor.decision_id,
                feature_snapshot_hash=anchor.snapshot_hash,
                rebuilt_hash=one.rebuilt_hash,
                outcome=outcome,
                reason=one.reason,
                detail=found.detail,
                as_of_time_utc=one.as_of,
                feature_groups=_refs(one.groups) if one.groups else None,
                first_difference=found.difference,
            )

    def _describe(self, anchor: ParityAnchor, one: Compared) -> Mismatch:
        served = self.comparer.reader.read(anchor)
        key, question = self.comparer.question(served)
        asked = QuestionAt(question, served.basis, served.text)
        return describe(self.comparer.rebuilder(key), asked, anchor.snapshot_hash, one.rebuilt, self.hashed_of)


@lru_cache(maxsize=4096)
def _refs(groups: tuple[tuple[str, str], ...]) -> tuple[GroupRef, ...]:
    return tuple(GroupRef(group_name=name, group_version=version) for name, version in groups)
