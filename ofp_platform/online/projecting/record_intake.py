"""The records of one commit, folded: which of them are events that a projection does not know yet, and what they touch.

Nothing is written here. What an intake remembers (identities, numbers of partitions, active runs) is what the store holds and
what was folded since; when a commit is lost, it must `forget`, and `remember` what the store says.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ofp_platform.log.port import RecordBatch
from ofp_platform.online.state.identity_index import DUPLICATE, POSITION_WORD, identity_words, offset_words, words_offset
from ofp_platform.online.state.known_identities import IdentityPolicy, KnownIdentities, OlderIdentities
from ofp_platform.online.state.projection import ProjectionConflict, ProjectionRow
from ofp_platform.registry.apply_failure import ApplyFailure, ApplyFailureReason
from ofp_platform.registry.belonging import Belonging, belonging
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.routing import APPLIED, UNKNOWN_TYPE, RoutedBatch, Router
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.position import PartitionBasis, PositionKind

Int64 = npt.NDArray[np.int64]
LOWEST = int(np.iinfo(np.int64).min)


FailureRow = tuple[str, str, str, str, int, str, str, str, bool]
"""Partition, offset, event id, event type, event time, reason, detail, groups ("" for all), whether other groups are fed."""


@dataclass
class FoldedBatch:
    """Fold of the records of one commit, before anything is written.

    `failures` are rows of the store, of records that feed nothing and of those that some groups cannot use (`partial`, last).
    `max_ts`: greatest time of its events; `watermark`: of those that feed a group. By partition: `readable`, the number of its
    readable records, `duplicates`, the places among these of copies of known events, int64 each, and `ends`, the basis behind.
    """

    failures: list[FailureRow] = field(default_factory=list)
    anomalies: list[tuple[str, str, str, str, str, str]] = field(default_factory=list)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    touched: dict[str, list[tuple[list[str], Int64]]] = field(default_factory=dict)
    readable: Counter[str] = field(default_factory=Counter)
    duplicates: dict[str, list[Int64]] = field(default_factory=dict)
    ends: dict[str, PartitionBasis] = field(default_factory=dict)
    max_ts: int = LOWEST
    watermark: int = LOWEST


@dataclass(frozen=True, eq=False)
class RoutedRecords:
    """A batch and what its own records say: which belong to the run (`keep` int64[k], their indices) and what those do.

    `routed` is None where none does.
    """

    batch: RecordBatch
    belonging: Belonging
    keep: Int64
    routed: RoutedBatch | None


class RecordIntake:
    """Takes in records for one projection. Not safe for threads.

    `retained_us`: how far before the watermark an event can still change what is served; `kind`: how the log
    numbers its records; `known`: the events that the projection knows.
    """

    def __init__(
        self,
        registry: CompiledRegistry,
        clock_skew_us: int,
        retained_us: int,
        kind: PositionKind,
        identity_policy: IdentityPolicy | None = None,
    ) -> None:
        self._router = Router(registry)
        self._skew = clock_skew_us
        self._retained_us = retained_us
        self._kind = kind
        self.words = identity_words(kind.offset_kind)
        """Words of an identity: two of the id's digest, two of the tie's, the partition's number, and the offset."""
        self.known = KnownIdentities(self.words, identity_policy)
        self.forget()

    def forget(self) -> None:
        """Remember nothing."""
        self.known.forget()
        self.partition_numbers: list[str] = []
        self.active: set[str] = set()

    def remember(self, active: set[str], partition_numbers: list[str]) -> None:
        """Take over the stored state, beside what is `known`: pins digests of the active runs, partitions by their number."""
        self.active, self.partition_numbers = active, partition_numbers

    def number(self, partition_id: str) -> int:
        """A small number that stands for a partition in identity entries; persisted with the partition's counters."""
        if partition_id not in self.partition_numbers:
            self.partition_numbers.append(partition_id)
        return self.partition_numbers.index(partition_id)

    def route(self, pins: ContextPins, batch: RecordBatch) -> RoutedRecords:
        """Route records: the part that depends on no earlier record, so it may run ahead of the commits before them."""
        membership = belonging(pins, batch.pins, batch.pins_index, batch.ts, batch.admitted_at, self._skew)
        keep = np.flatnonzero(membership.own)
        if not len(keep):
            return RoutedRecords(batch, membership, keep, None)
        keeps_all = len(keep) == len(batch)
        routed_batch = self._router.route(
            event_types=_take(batch.event_types, keep, keeps_all),
            event_ids=_take(batch.event_ids, keep, keeps_all),
            schema_versions=_take(batch.schema_versions, keep, keeps_all),
            ts=batch.ts[keep],
            payload_hashes=_take(batch.payload_hashes, keep, keeps_all),
            payloads=_take(batch.payloads, keep, keeps_all),
            amends=_take(batch.amends, keep, keeps_all),
        )
        return RoutedRecords(batch, membership, keep, routed_batch)

    def digests(self, records: RoutedRecords) -> npt.NDArray[np.uint64]:
        """The id and tie of each event among routed records, uint64[n, 4]: what is looked up before they are folded."""
        if records.routed is None:
            return np.zeros((0, POSITION_WORD), np.uint64)
        applied_indexes = np.flatnonzero(records.routed.status == APPLIED)
        return np.hstack([records.routed.id_digest[applied_indexes], records.routed.tie_digest[applied_indexes]])

    def fold(self, row: ProjectionRow, records: RoutedRecords, work: FoldedBatch, older: OlderIdentities | None = None) -> None:
        """Add records of one partition, which continue the basis of `row`, or what `work` has of that partition already.

        `older`: what segments know of their `digests`.

        Raises:
            ProjectionConflict: they do not.
        """
        batch, keep, routed_batch = records.batch, records.keep, records.routed
        known_part = work.ends.get(batch.partition_id) or row.basis.by_partition().get(batch.partition_id)
        if known_part is not None and len(batch) and not self._kind.continues(known_part, batch.offsets[0]):
            raise ProjectionConflict(f"records of partition {batch.partition_id} do not continue the basis")
        work.ends[batch.partition_id] = batch.next
        counts = work.counts.setdefault(batch.partition_id, Counter())
        counts["records"] += len(batch) + len(batch.unreadable)
        counts["failed"] += len(batch.unreadable)
        for record in batch.unreadable:
            reason, detail = ApplyFailureReason.MALFORMED_PAYLOAD, f"{record.reason}: {record.message}"
            work.failures.append((batch.partition_id, str(record.offset), "", "", 0, reason, detail, "", False))
        self._refuse(batch, records.belonging, work, counts)
        first_place = work.readable[batch.partition_id]
        work.readable[batch.partition_id] += len(batch)
        if routed_batch is None:
            return
        for failures, is_partial in ((routed_batch.failures, False), (routed_batch.group_failures, True)):
            work.failures += [_failure(batch, int(keep[failure.index]), failure, is_partial) for failure in failures]
        counts["failed"] += len(routed_batch.failures)
        if routed_batch.group_failures:
            counts["partial"] += len(routed_batch.group_failures)
        counts["ignored"] += int(np.count_nonzero(routed_batch.status == UNKNOWN_TYPE))
        fresh, copies = self._admit(batch, keep, routed_batch, work, counts, older)
        if len(copies):
            work.duplicates.setdefault(batch.partition_id, []).append(first_place + keep[copies])
        if not fresh.any():
            return
        ts = batch.ts[keep]
        work.max_ts = max(work.max_ts, int(ts[fresh].max()))
        feeds = fresh & routed_batch.feeds
        if feeds.any():
            work.watermark = max(work.watermark, int(ts[feeds].max()))
        counts["applied"] += int(np.count_nonzero(fresh))
        if row.watermark is not None:
            counts["late"] += int(np.count_nonzero(ts[fresh] <= row.watermark - self._retained_us))
        collect_touched(work.touched, routed_batch, fresh)

    def _refuse(self, batch: RecordBatch, membership: Belonging, work: FoldedBatch, counts: Counter[str]) -> None:
        """Records of other runs, and of this one those that are ahead of their admission by more than the skew."""
        for index in np.flatnonzero(membership.wrong_pins | membership.other_run).tolist():
            if pins_digest(batch.pins[batch.pins_index[index]]) in self.active:
                counts["ignored"] += 1
                continue
            if membership.wrong_pins[index]:
                reason, detail = ApplyFailureReason.WRONG_PINS, "this run's id with other pins"
            else:
                reason, detail = ApplyFailureReason.INACTIVE_RUN, "no projection of this run is active here"
            counts["failed"] += 1
            work.failures.append(_failure(batch, index, ApplyFailure(index, reason, detail)))
        for index in np.flatnonzero(membership.future).tolist():
            counts["failed"] += 1
            ahead = int(batch.ts[index] - batch.admitted_at[index]) // 1_000_000
            detail = f"event time is {ahead} s past its admission; allowed {self._skew // 1_000_000} s"
            work.failures.append(_failure(batch, index, ApplyFailure(index, ApplyFailureReason.FUTURE_EVENT, detail)))

    def _admit(
        self,
        batch: RecordBatch,
        keep: Int64,
        routed_batch: RoutedBatch,
        work: FoldedBatch,
        counts: Counter[str],
        older: OlderIdentities | None,
    ) -> tuple[npt.NDArray[np.bool_], Int64]:
        """Which of the routed records are events that the projection does not know yet, and indices of those that it knows."""
        applied_indexes = np.flatnonzero(routed_batch.status == APPLIED)
        fresh = np.zeros(len(keep), np.bool_)
        if not len(applied_indexes):
            return fresh, applied_indexes
        words = np.empty((len(applied_indexes), self.words), np.uint64)
        words[:, 0:2] = routed_batch.id_digest[applied_indexes]
        words[:, 2:4] = routed_batch.tie_digest[applied_indexes]
        words[:, 4] = self.number(batch.partition_id)
        if self._kind.offset_kind.is_integer:
            words[:, 5] = np.asarray(batch.offsets, np.uint64)[keep[applied_indexes]]
        else:
            words[:, 5:] = [offset_words(batch.offsets[index], False) for index in keep[applied_indexes]]
        status, earliest = self.known.admit(words, older)
        for index, first in earliest.items():
            record = int(keep[applied_indexes[index]])
            work.anomalies.append(
                (
                    batch.partition_id,
                    str(batch.offsets[record]),
                    batch.event_ids[record],
                    batch.event_types[record],
                    self.partition_numbers[int(first[4])],
                    words_offset(first[5:]),
                )
            )
        is_copy = status == DUPLICATE
        copies = applied_indexes[is_copy]
        counts["duplicates"] += len(copies)
        fresh[applied_indexes[~is_copy]] = True
        return fresh, copies


def collect_touched(
    key_events: dict[str, list[tuple[list[str], Int64]]], routed_batch: RoutedBatch, fresh: npt.NDArray[np.bool_]
) -> None:
    """Add what the fresh ones (bool, one a routed record) among routed records touch, by key type."""
    for key_type, touched_keys in routed_batch.touched.items():
        is_new = fresh[touched_keys.record_index]
        if is_new.all():
            key_events.setdefault(key_type, []).append((touched_keys.key_ids, touched_keys.matrix))
        elif is_new.any():
            ids = [name for name, keep in zip(touched_keys.key_ids, is_new.tolist(), strict=True) if keep]
            key_events.setdefault(key_type, []).append((ids, touched_keys.matrix[:, is_new]))


def _failure(batch: RecordBatch, index: int, failure: ApplyFailure, is_partial: bool = False) -> FailureRow:
    return (
        batch.partition_id,
        str(batch.offsets[index]),
        batch.event_ids[index],
        batch.event_types[index],
        int(batch.ts[index]),
        failure.reason.value,
        failure.detail,
        failure.group_names,
        is_partial,
    )


def _take(values: list[Any], keep: Int64, keeps_all: bool) -> list[Any]:
    return values if keeps_all else [values[index] for index in keep]
