"""Defects to plant in the plane, each a mistake that somebody could make: a suite that does not find them sees nothing.

A planted defect replaces one function while it is planted; nothing of the plane has a switch for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np

from ofp_platform.identity import entities
from ofp_platform.identity.entities import Entity, LinkSet, LinkSource, entities_of
from ofp_platform.kernel import amendments, answer_form, windows
from ofp_platform.kernel.entity_events import merged_in_time
from ofp_platform.kernel.query import DELAY, WINDOW, LayoutArrays
from ofp_platform.log.archived_log import ArchivedLog
from ofp_platform.log.kinesis_shards import ShardReader
from ofp_platform.log.port import PartitionInfo, PartitionNotFound, PositionTrimmed, RecordBatch, readable_partitions
from ofp_platform.offline.labels.label_store import LabelStore, as_observed
from ofp_platform.offline.requests import replay_history
from ofp_platform.online.projecting import chunk_merge, read_ahead, record_intake, shard_projector
from ofp_platform.online.serving import evaluation, resolved_question
from ofp_platform.online.serving.evaluation import Evaluator
from ofp_platform.online.state.identity_index import ANOMALY, DUPLICATE, NEW, IdentityIndex, Words
from ofp_platform.online.state.known_identities import KnownIdentities, OlderIdentities
from ofp_platform.registry.belonging import Belonging, belonging
from ofp_platform.registry.event_plan import KeyPlan
from ofp_platform.registry.layout import AMENDS_TIME_ROW, FIXED_ROW, KeyLayout
from ofp_platform.storage import anomaly_records
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.position import Basis, PartitionBasis, make_basis

Defect = Callable[[], AbstractContextManager[None]]


def moved_edges(plan: LayoutArrays, left: int, right: int) -> LayoutArrays:
    """The same plan, each window beginning `left` and ending `right` microseconds earlier."""
    slots = plan.slots.copy()
    slots[:, WINDOW] += left - right
    slots[:, DELAY] += right
    return replace(plan, slots=slots)


@contextmanager
def _serving_with(left: int, right: int) -> Iterator[None]:
    begin = Evaluator.__init__

    def mistaken(evaluator: Evaluator, *rest: Any) -> None:
        begin(evaluator, *rest)
        evaluator._arrays = {name: moved_edges(arrays, left, right) for name, arrays in evaluator._arrays.items()}

    with patch.object(Evaluator, "__init__", mistaken):
        yield


def left_edge_closed() -> AbstractContextManager[None]:
    """Serving counts an event at exactly T - delay - window."""
    return _serving_with(left=1, right=0)


def right_edge_open() -> AbstractContextManager[None]:
    """Serving does not count an event at exactly T - delay."""
    return _serving_with(left=0, right=1)


@contextmanager
def _identities(seen: int, taken_for: int) -> Iterator[None]:
    admit = IdentityIndex.admit

    def mistaken(index: IdentityIndex, words: Any, older: Any = None) -> Any:
        status, earlier = admit(index, words, older)
        return np.where(status == seen, taken_for, status), earlier

    with patch.object(IdentityIndex, "admit", mistaken):
        yield


def duplicates_counted_twice() -> AbstractContextManager[None]:
    """The projector takes a copy of an event for another event."""
    return _identities(DUPLICATE, NEW)


def conflicts_dropped() -> AbstractContextManager[None]:
    """The projector takes another content of an event for a copy of it."""
    return _identities(ANOMALY, DUPLICATE)


@contextmanager
def older_events_not_looked_up() -> Iterator[None]:
    """The projector looks for an event among the newest only."""

    def mistaken(*rest: Any) -> OlderIdentities:
        queries: Words = rest[-1]
        return OlderIdentities(np.full(len(queries), NEW, np.int8), queries)

    with patch.object(KnownIdentities, "older", mistaken):
        yield


@contextmanager
def skew_one_short() -> Iterator[None]:
    """The projector refuses an event that is ahead of its admission by exactly what is allowed."""

    def mistaken(*rest: Any) -> Belonging:
        arguments = (*rest[:-1], rest[-1] - 1)
        return belonging(*arguments)

    with patch.object(record_intake, "belonging", mistaken):
        yield


@contextmanager
def ties_in_order_of_arrival() -> Iterator[None]:
    """Events of equal times stand as they came, in chunks and in tails."""
    merge, read = chunk_merge.merge, evaluation.read_tail
    with (
        patch.object(chunk_merge, "merge", lambda *rest, ties, limit: merge(*rest, ties=False, limit=limit)),
        patch.object(evaluation, "read_tail", lambda *rest, ties: read(*rest, ties=False)),
    ):
        yield


@contextmanager
def trimmed_is_empty() -> Iterator[None]:
    """A fold over a trimmed log begins where the log does, and leaves the archive alone."""
    read = ArchivedLog.read

    def mistaken(log: ArchivedLog, partition_id: str, basis: PartitionBasis | None, max_records: int) -> RecordBatch:
        try:
            return log._log.read(partition_id, basis, max_records)
        except PositionTrimmed:
            return log._log.read(partition_id, log._log.retention_floor().by_partition()[partition_id], max_records)
        except PartitionNotFound:
            return read(log, partition_id, basis, max_records)

    with patch.object(ArchivedLog, "read", mistaken):
        yield


@contextmanager
def vanished_is_finished() -> Iterator[None]:
    """A shard that is listed no more counts as read to its end."""

    def mistaken(infos: Iterable[PartitionInfo], basis: Basis) -> list[str]:
        listed = list(infos)
        names = {info.partition_id for info in listed}
        left = [replace(info, parents=tuple(name for name in info.parents if name in names)) for info in listed]
        parts = {name: part for name, part in basis.by_partition().items() if name in names}
        return readable_partitions([replace(info, unlisted_parents=()) for info in left], make_basis(basis.stream_name, parts))

    with patch.object(read_ahead, "readable_partitions", mistaken), patch.object(ArchivedLog, "partitions", _partitions_of_log):
        yield


@contextmanager
def silence_is_quiet() -> Iterator[None]:
    """Reading a shard goes on at the oldest record that is kept, and nobody asks what stood before it."""

    def mistaken(reader: ShardReader, shard_id: str, after: str | None, deadline: float | None) -> str:
        if after:
            return reader._iterator(shard_id, deadline, ShardIteratorType="AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=after)
        return reader._iterator(shard_id, deadline, ShardIteratorType="TRIM_HORIZON")

    with patch.object(ShardReader, "_open", mistaken):
        yield


def _partitions_of_log(log: ArchivedLog) -> list[PartitionInfo]:
    return log._log.partitions()


@contextmanager
def late_is_whole() -> Iterator[None]:
    """A replay that starts late is taken for whole."""
    with patch.object(replay_history, "check_history", lambda *rest: None):
        yield


@contextmanager
def labels_on_one_clock() -> Iterator[None]:
    """A label counts as observed when its source says so, whenever it was admitted."""
    append = LabelStore.append

    def mistaken(store: LabelStore, assertions: Iterable[LabelAssertion], admitted_at: Any = None) -> Any:
        return append(store, assertions, as_observed)

    with patch.object(LabelStore, "append", mistaken):
        yield


@contextmanager
def forgotten_never_recorded() -> Iterator[None]:
    """An id that comes again with another content is an anomaly only while the projection remembers the first one."""
    with patch.object(anomaly_records, "_missing_rows", lambda *rest: iter(())):
        yield


@contextmanager
def all_groups_or_none() -> Iterator[None]:
    """An event that lacks what one group needs feeds no group of its key."""
    fed_bits = KeyPlan.fed_bits

    def mistaken(plan: KeyPlan, lacks: Mapping[str, Any], count: int) -> Any:
        feeds, bits = fed_bits(plan, lacks, count)
        for is_lacking in lacks.values():
            feeds = feeds & ~is_lacking
        return feeds, bits

    with patch.object(KeyPlan, "fed_bits", mistaken):
        yield


@contextmanager
def epochs_applied_twice() -> Iterator[None]:
    """A key shard writes the events of an epoch that it has once more."""
    own_events = shard_projector.of_shards

    def mistaken(*arguments: Any) -> Any:
        return {key_type: [*runs, *runs] for key_type, runs in own_events(*arguments).items()}

    with patch.object(shard_projector, "of_shards", mistaken):
        yield


@contextmanager
def keys_of_no_shard() -> Iterator[None]:
    """A key shard takes a key of its own for another's."""
    own_events = shard_projector.of_shards

    def mistaken(*arguments: Any) -> Any:
        left = {}
        for key_type, runs in own_events(*arguments).items():
            lost = min(key_id for key_ids, _ in runs for key_id in key_ids)
            kept = [(key_ids, np.array([key_id != lost for key_id in key_ids]), matrix) for key_ids, matrix in runs]
            left[key_type] = [(list(np.array(key_ids)[keep]), matrix[:, keep]) for key_ids, keep, matrix in kept if keep.any()]
        return {key_type: runs for key_type, runs in left.items() if runs}

    with patch.object(shard_projector, "of_shards", mistaken):
        yield


def _serving_amendments_as(change: Callable[[np.ndarray], None], *, counts_too: bool = True) -> Iterator[None]:
    def mistaken(layout: KeyLayout, matrix: np.ndarray, time: int) -> np.ndarray:
        if not layout.amendable:
            return matrix
        changed = matrix.copy()
        change(changed)
        counts = amendments.is_amendment(matrix) & ((changed if counts_too else matrix)[AMENDS_TIME_ROW] <= time)
        with patch.object(amendments, "deciding", lambda _matrix, flags: deciding(changed, flags)):
            return amendments.apply_amendments(layout, matrix, counts)

    deciding = amendments.deciding
    with patch.object(windows, "in_force", mistaken), patch.object(answer_form, "in_force", mistaken):
        yield


@contextmanager
def amendments_at_once() -> Iterator[None]:
    """Serving lets an amendment count from the time of its event on."""

    def change(matrix: np.ndarray) -> None:
        is_amendment = amendments.is_amendment(matrix)
        matrix[AMENDS_TIME_ROW, is_amendment] = np.minimum(matrix[AMENDS_TIME_ROW], matrix[0])[is_amendment]

    yield from _serving_amendments_as(change)


@contextmanager
def amendments_of_any_payload() -> Iterator[None]:
    """Serving takes a replacement that changes what may not change."""

    def change(matrix: np.ndarray) -> None:
        matrix[FIXED_ROW : FIXED_ROW + 2] = 0

    yield from _serving_amendments_as(change)


@contextmanager
def amendments_in_order_of_identity() -> Iterator[None]:
    """Of several amendments of an event the one with the greatest identity decides, whatever their times."""

    def change(matrix: np.ndarray) -> None:
        matrix[AMENDS_TIME_ROW] = 0

    yield from _serving_amendments_as(change, counts_too=False)


@contextmanager
def links_one_late() -> Iterator[None]:
    """Serving does not count a link whose effective time is exactly T."""

    def mistaken(source: LinkSource, keys: Sequence[tuple[str, str]], time: int, most: int) -> Mapping[tuple[str, str], Entity]:
        return entities_of(source, keys, time - 1, most)

    with patch.object(resolved_question, "entities_of", mistaken):
        yield


@contextmanager
def links_for_good() -> Iterator[None]:
    """Serving never takes a link back."""

    def mistaken(source: LinkSource, keys: Sequence[tuple[str, str]], time: int, most: int) -> Mapping[tuple[str, str], Entity]:
        events = [
            event
            for key_type in {key_type for key_type, _ in keys}
            for event in set(source.about(key_type, [f"{key_type[0]}-{place}" for place in range(4)]))
        ]
        return entities_of(LinkSet(event for event in events if event.is_link), keys, time, most)

    with patch.object(resolved_question, "entities_of", mistaken):
        yield


@contextmanager
def links_in_order_of_identity() -> Iterator[None]:
    """Of several links and unlinks of two the one with the greatest identity decides, whatever their times."""
    with patch.object(entities, "_rank", lambda event: event.identity):
        yield


@contextmanager
def a_member_left_out() -> Iterator[None]:
    """Serving reads all members of an entity but the last."""
    with patch.object(resolved_question, "merged_in_time", lambda parts, *, ties: merged_in_time(parts[:-1], ties=ties)):
        yield


DEFECTS: dict[str, Defect] = {
    "a window closed on its left": left_edge_closed,
    "duplicates counted twice": duplicates_counted_twice,
    "a window open on its right": right_edge_open,
    "conflicts dropped": conflicts_dropped,
    "older events not looked up": older_events_not_looked_up,
    "the skew a microsecond short": skew_one_short,
    "ties in the order of arrival": ties_in_order_of_arrival,
    "a trimmed log taken for all of it": trimmed_is_empty,
    "a shard listed no more taken for finished": vanished_is_finished,
    "a shard that trimmed records taken for a quiet one": silence_is_quiet,
    "a replay that starts late taken for whole": late_is_whole,
    "labels dated by their source": labels_on_one_clock,
    "ids forgotten behind the horizon": forgotten_never_recorded,
    "groups that need less not fed": all_groups_or_none,
    "an epoch that a key shard applies twice": epochs_applied_twice,
    "a key that no shard takes": keys_of_no_shard,
    "an amendment that counts before its time": amendments_at_once,
    "an amendment that changes what it may not": amendments_of_any_payload,
    "amendments told apart by identity alone": amendments_in_order_of_identity,
    "a link that counts a microsecond late": links_one_late,
    "a link that is never taken back": links_for_good,
    "links told apart by identity alone": links_in_order_of_identity,
    "a member whose events are left out": a_member_left_out,
}
