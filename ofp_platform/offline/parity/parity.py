"""Parity: what was served against its rebuild from the log, in batches. Equal hashes decide, and nothing else does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from typing import Any, NamedTuple

from ofp_platform.identity.context_replay import ContextReplay, GraphUnknown
from ofp_platform.kernel.snapshot import Resolution
from ofp_platform.offline.parity.mismatch import Mismatch, describe
from ofp_platform.offline.parity.parity_anchor import AnchorReader, NotComparable, ParityAnchor, ServedSnapshot
from ofp_platform.offline.parity.rebuilding import QuestionAt, Rebuilder, ReplayedRun
from ofp_platform.registry.question import Question, check_context, check_request
from ofp_platform.storage.process_settings import collect_rarely
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, AsOfSpec
from ofp_platform.vocabulary.offline.parity_record import ParityOutcome, ParityResult, UncheckableReason
from ofp_platform.vocabulary.profile import Limits
from ofp_platform.vocabulary.serving import GraphVersion

BATCH = 2_048
_KEPT = 65_536
_ANYTHING = Limits(max_keys=2**31, max_groups=2**31, max_request_context_fields=2**31)
RunKey = tuple[str, str]
"""(registry digest, run config digest)"""


@dataclass(frozen=True)
class ParityRuns:
    """The replay of one run, folded under each pack and run config: what its snapshots are compared with. `context`: its links,
    where a pack resolves identities."""

    stream_name: str
    pins: ContextPins
    runs: Mapping[RunKey, ReplayedRun]
    context: ContextReplay | None = None


class Comparison(NamedTuple):
    """One comparison. `rebuilt`: the hashed bytes of the rebuild where they differ, or why there is none (a text)."""

    rebuilt_hash: str | None = None
    reason: UncheckableReason | None = None
    detail: str | None = None
    served: ServedSnapshot | None = None
    rebuilt: bytes | str | None = None


def resolution_of(question: Question, version: GraphVersion | None, context: ContextReplay | None) -> Resolution | None:
    """Resolve the keys of a question by the version of the graph that it was resolved by; None: the graph was not asked.

    Raises:
        NotComparable: GRAPH_VERSION_UNKNOWN: the links at hand do not give that version, or no group resolves;
            PROVENANCE_INCOMPLETE: a group resolves, and no version is recorded.
    """
    keys = question.keys_to_resolve
    if version is None:
        if keys:
            text = "a group resolves identities, and no version of the graph is recorded"
            raise NotComparable(UncheckableReason.PROVENANCE_INCOMPLETE, text)
        return None
    if not keys:
        text = f"it used version {version.graph_version} of the identity graph, and none of its groups resolves identities"
        raise NotComparable(UncheckableReason.GRAPH_VERSION_UNKNOWN, text)
    if context is None:
        text = f"it used version {version.graph_version} of the identity graph, and no context stream is at hand"
        raise NotComparable(UncheckableReason.GRAPH_VERSION_UNKNOWN, text)
    try:
        return Resolution.of(version, context.entities(version, keys, question.as_of))
    except GraphUnknown as error:
        raise NotComparable(UncheckableReason.GRAPH_VERSION_UNKNOWN, str(error)) from None


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
        """The rebuilder of one pack and run config, kept."""
        rebuilder = self._rebuilders.get(key)
        if rebuilder is None:
            rebuilder = self._rebuilders[key] = Rebuilder(self.parity.runs[key])
        return rebuilder

    def compare(self, anchors: Iterable[ParityAnchor]) -> list[Comparison]:
        """One comparison per anchor, in their order."""
        results: list[Comparison] = []
        questions_by_run: dict[RunKey, list[tuple[int, ParityAnchor, QuestionAt]]] = {}
        for number, anchor in enumerate(anchors):
            served_snapshot: ServedSnapshot | None = None
            try:
                served_snapshot = self.reader.read(anchor)
                run_key, question = self.question(served_snapshot)
                question_at = self.question_at(served_snapshot, question)
            except NotComparable as error:
                results.append(Comparison(None, error.reason, error.detail, served_snapshot))
                continue
            results.append(Comparison(None, None, None, served_snapshot))
            questions_by_run.setdefault(run_key, []).append((number, anchor, question_at))
        for run_key, items in questions_by_run.items():
            rebuilt_snapshots = self.rebuilder(run_key).hashed_bytes([question for _, _, question in items])
            for (number, anchor, _), hashed_bytes in zip(items, rebuilt_snapshots, strict=True):
                if isinstance(hashed_bytes, ContractError):
                    results[number] = results[number]._replace(rebuilt=hashed_bytes.message)
                    continue
                digest = sha256_hex(hashed_bytes)
                equal = digest == anchor.snapshot_hash
                results[number] = results[number]._replace(rebuilt_hash=digest, rebuilt=None if equal else hashed_bytes)
        return results

    def question(self, served_snapshot: ServedSnapshot) -> tuple[RunKey, Question]:
        """The question that a served snapshot answered, and the key of the run to ask it of.

        Raises:
            NotComparable: this replay cannot answer it.
        """
        parity, pins = self.parity, served_snapshot.plain.context_pins
        if served_snapshot.basis.stream_name != parity.stream_name:
            raise NotComparable(
                UncheckableReason.ANOTHER_STREAM, f"it was served from stream {served_snapshot.basis.stream_name}"
            )
        if pins is not self._pins:
            if pins != parity.pins:
                raise NotComparable(UncheckableReason.ANOTHER_RUN, f"it was served for run {pins.run_id} and its pins")
            self._pins = pins
        key = (served_snapshot.registry_digest, served_snapshot.run_config_digest)
        if key not in parity.runs:
            if all(registry != key[0] for registry, _ in parity.runs):
                raise NotComparable(UncheckableReason.REGISTRY_MISSING, f"no pack of digest {key[0]} is at hand")
            raise NotComparable(UncheckableReason.RUN_CONFIG_UNKNOWN, f"the policies of run config {key[1]} are not known here")
        missing_part = self._lacks(key, served_snapshot)
        if missing_part is not None:
            raise NotComparable(UncheckableReason.BASIS_BEYOND_REPLAY, missing_part)
        try:
            return key, self._check_request(key, served_snapshot)
        except ContractError as error:
            unknown = error.reason is Reason.UNKNOWN_GROUP_VERSION
            reason = UncheckableReason.GROUP_VERSION_MISSING if unknown else UncheckableReason.PROVENANCE_INCOMPLETE
            raise NotComparable(reason, error.message) from None

    def question_at(self, served_snapshot: ServedSnapshot, question: Question) -> QuestionAt:
        """The question at the basis that it was answered at, resolved by the version of the graph that it was resolved by.

        Raises:
            NotComparable: that version cannot be had from the context stream.
        """
        resolution = resolution_of(question, served_snapshot.graph_version, self.parity.context)
        return QuestionAt(question, served_snapshot.basis, served_snapshot.basis_text, resolution)

    def _lacks(self, key: RunKey, served_snapshot: ServedSnapshot) -> str | None:
        if (key, served_snapshot.basis_text) not in self._lacking:
            if len(self._lacking) > _KEPT:
                self._lacking.clear()
            self._lacking[key, served_snapshot.basis_text] = self.rebuilder(key).run.knowledge.lacks(served_snapshot.basis)
        return self._lacking[key, served_snapshot.basis_text]

    def _check_request(self, key: RunKey, served_snapshot: ServedSnapshot) -> Question:
        """As `check_request`; of questions for the same groups and key types, what does not depend on the keys is kept."""
        shape = (key, served_snapshot.group_names, tuple([key_type for key_type, _ in served_snapshot.keys]))
        first_question = self._shapes.get(shape)
        if first_question is None or len(set(served_snapshot.keys)) != len(served_snapshot.keys):
            if len(self._shapes) > _KEPT:
                self._shapes.clear()
            registry = self.rebuilder(key).registry
            first_question = self._shapes[shape] = check_request(served_snapshot.request, registry, self.parity.pins, _ANYTHING)
        context = check_context(served_snapshot.plain.request_context, first_question.groups, _ANYTHING, self.parity.pins)
        return Question(
            served_snapshot.plain,
            served_snapshot.as_of,
            served_snapshot.keys,
            first_question.groups,
            first_question.groups_of,
            context,
        )


def _served_facts(served_snapshot: ServedSnapshot | None) -> dict[str, Any]:
    """The fields of a result that say what was served."""
    if served_snapshot is None:
        return {}
    return {
        "request_id": served_snapshot.plain.request_id,
        "context_pins": served_snapshot.plain.context_pins,
        "feature_keys": served_snapshot.feature_keys,
        "feature_groups": served_snapshot.groups,
        # the reader has held the time against its rules
        "as_of": AsOfSpec.model_construct(as_of_time_utc=served_snapshot.plain.as_of_time_utc, as_of_basis=AsOfBasis.DECISION),
        "input_basis": served_snapshot.basis,
        "registry_digest": served_snapshot.registry_digest,
        "run_config_digest": served_snapshot.run_config_digest,
    }


def compare_all(
    anchors: Iterable[ParityAnchor],
    parity: ParityRuns,
    comparison_id: str,
    hashed_of: Callable[[str], dict[str, Any]],
    *,
    workers: int = 1,
) -> Iterator[ParityResult]:
    """Compare every anchor; the records come in the order of the anchors, and only a few batches are held at once.

    Args:
        hashed_of: the stored `hashed` object of a snapshot, asked only for what differs; raises SnapshotMissing or
            SnapshotDamaged.
        workers: processes; 1 is this one.
    """
    comparer = Comparer(parity)
    record_maker = _RecordMaker(comparer, comparison_id, hashed_of)
    remaining_anchors = iter(anchors)
    batches = iter(lambda: list(islice(remaining_anchors, BATCH)), [])
    if workers == 1:
        for batch in batches:
            yield from record_maker.records(batch, comparer.compare(batch))
        return
    for key in parity.runs:
        rebuilder = comparer.rebuilder(key)
        rebuilder.index.prepare(rebuilder.registry.layouts, workers)
    context = get_context("spawn")  # a fork would take the threads' locks of this process with it
    with ProcessPoolExecutor(workers, context, _start_worker, (parity,)) as pool:
        pending_batches: deque[tuple[list[ParityAnchor], Future[list[Comparison]]]] = deque()
        for batch in batches:
            pending_batches.append((batch, pool.submit(_compare_in_worker, batch)))
            if len(pending_batches) > 2 * workers:
                first, future = pending_batches.popleft()
                yield from record_maker.records(first, future.result())
        while pending_batches:
            first, future = pending_batches.popleft()
            yield from record_maker.records(first, future.result())


_worker: list[Comparer] = []


def _start_worker(parity: ParityRuns) -> None:
    collect_rarely()
    _worker.append(Comparer(parity))


def _compare_in_worker(batch: list[ParityAnchor]) -> list[Comparison]:
    return _worker[0].compare(batch)


@dataclass(frozen=True)
class _RecordMaker:
    """Makes parity records of comparisons."""

    comparer: Comparer
    comparison_id: str
    hashed_of: Callable[[str], dict[str, Any]]

    def records(self, anchors: list[ParityAnchor], comparisons: list[Comparison]) -> Iterator[ParityResult]:
        for anchor, comparison in zip(anchors, comparisons, strict=True):
            outcome, mismatch = ParityOutcome.MATCH, Mismatch((), comparison.detail)
            if comparison.reason is not None:
                outcome = ParityOutcome.UNCHECKABLE
            elif comparison.rebuilt_hash != anchor.snapshot_hash:
                outcome, mismatch = ParityOutcome.MISMATCH, self._describe(anchor, comparison)
            yield ParityResult(
                comparison_id=self.comparison_id,
                decision_id=anchor.decision_id,
                online_snapshot_ref=anchor.snapshot_hash,
                offline_snapshot_ref=comparison.rebuilt_hash,
                outcome=outcome,
                reason=comparison.reason,
                detail=mismatch.detail,
                differences=mismatch.differences,
                **_served_facts(comparison.served),
            )

    def _describe(self, anchor: ParityAnchor, comparison: Comparison) -> Mismatch:
        served_snapshot = self.comparer.reader.read(anchor)
        key, question = self.comparer.question(served_snapshot)
        question_at = self.comparer.question_at(served_snapshot, question)
        return describe(self.comparer.rebuilder(key), question_at, anchor.snapshot_hash, comparison.rebuilt, self.hashed_of)
