"""Stored contents of offset ranges of a projection, held against the log.

Verification reads the records of a range again and asks for each what became of it: an event of the state (at this
position, or a copy of one elsewhere), an apply failure, an event of another run or of an unknown type. A record that is
none of these was lost; an event of the state that no record stands for was invented. Neither may happen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg import Connection

from ofp_platform.log.port import PositionTrimmed, RecordBatch
from ofp_platform.log.ranges import RangeBounds, RangeTrimmed
from ofp_platform.online.plane import Plane
from ofp_platform.online.state.identity_index import DUPLICATE, POSITION_WORD, IdentityIndex, identity_words, words_offset
from ofp_platform.online.state.known_identities import KnownIdentities
from ofp_platform.online.state.projection import ProjectionRow, read_projection
from ofp_platform.online.state.store_snapshot import store_snapshot
from ofp_platform.registry.routing import APPLIED, UNKNOWN_TYPE, Router
from ofp_platform.vocabulary.identity import pins_digest
from ofp_platform.vocabulary.position import PartitionBasis, order, place, record_limit

Failure = tuple[str, str]
_PAGE = 10_000
_SHOWN = 20
Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class RangeContents:
    """Stored contents of one range: events of the state, apply failures by reason, anomalies.

    `failures` are of records that feed nothing, `group_failures` of events that some groups cannot use.
    """

    events: int
    failures: Mapping[str, int]
    group_failures: Mapping[str, int]
    anomalies: int


@dataclass(frozen=True)
class Verification:
    """A range's records against the store.

    `forgotten`: events behind the horizon, whose identities are pruned. `lost`: offsets (the first 20) of records that
    the store knows nothing of, or calls failed although they are not, or calls fed to other groups than they are;
    `invented`: offsets of events of the state that no record stands for.
    """

    records: int
    events: int
    duplicates: int
    failures: Mapping[str, int]
    group_failures: Mapping[str, int]
    ignored: int
    forgotten: int
    lost: tuple[str, ...]
    invented: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether every record has exactly one fate."""
        return not self.lost and not self.invented


class ProjectionContents:
    """The identities of a projection, as of the commit that each reading finds.

    What is in segments is read through, not loaded: a reading takes the memory of a projector, and the time of the segments whose
    positions overlap the range.
    """

    def __init__(self, plane: Plane, row: ProjectionRow) -> None:
        self._plane = plane
        self._registry = plane.registry_of(row)
        kind = plane.log.position_kind.offset_kind
        self._one_word = kind.is_integer
        self._width = identity_words(kind)
        self._known = KnownIdentities(self._width)
        self._numbers: dict[str, int] = {}
        self.row = row
        self._version: int | None = None

    def contents(self, bounds: RangeBounds) -> RangeContents:
        """Read the stored contents of a range."""
        with store_snapshot(self._plane.pool, self.row.projection_id) as (connection, _):
            self._read(connection)
            failures = self._failures(connection, bounds.start, bounds.end, is_partial=False)
            group_failures = self._failures(connection, bounds.start, bounds.end, is_partial=True)
            anomalies = self._rows(connection, "anomaly", "record_offset", bounds.start, bounds.end)
            events = len(self._inside(connection, bounds.start, bounds.end))
        return RangeContents(events, _by_reason(failures.values()), _by_reason(group_failures.values()), len(anomalies))

    def verify(self, start: PartitionBasis, end: PartitionBasis) -> Verification:
        """Read the records between two bases again and find each in the store.

        Raises:
            RangeTrimmed: the log no longer holds them.
        """
        with store_snapshot(self._plane.pool, self.row.projection_id) as (connection, _):
            self._read(connection)
            index = IdentityIndex(self._width)
            index.load(self._known.recent.entries)
            inside = self._inside(connection, start, end)
            here = {words_offset(row[POSITION_WORD + 1 :]): row[:POSITION_WORD].tobytes() for row in inside}
            failures = self._failures(connection, start, end, is_partial=False)
            group_failures = self._failures(connection, start, end, is_partial=True)
            tally = _Tally(here, failures, group_failures)
            router = Router(self._registry)
            at = self._plane.log.history.with_incarnation(start)
            while place(at) < place(end):
                limit = record_limit(at, end)
                try:
                    batch = self._plane.archived_log.read(start.partition_id, at, _PAGE if limit is None else min(_PAGE, limit))
                except PositionTrimmed as error:
                    raise RangeTrimmed(str(error)) from error
                self._classify(connection, batch, place(end), router, index, tally)
                if place(batch.next) <= place(at):
                    break
                at = batch.next
        tally.lost_offsets += [offset for offset in failures if offset not in tally.failed_offsets]
        tally.lost_offsets += [offset for offset in group_failures if offset not in tally.partial_offsets]
        tally.invented_offsets = [offset for offset in here if offset not in tally.found_offsets]
        return tally.verification()

    def _read(self, connection: Connection[Any]) -> None:
        """Read what is known, unless no commit came since it was read."""
        self.row = read_projection(connection, self.row.projection_id)
        if self._version == self.row.version:
            return
        self._known.forget()
        self._known.load(connection, self.row.projection_id)
        names = connection.execute(
            "SELECT partition_id FROM ofp.projection_partition WHERE projection_id = %s ORDER BY partition_number",
            (self.row.projection_id,),
        ).fetchall()
        self._numbers = {name: number for number, (name,) in enumerate(names)}
        self._version = self.row.version

    def _inside(self, connection: Connection[Any], start: PartitionBasis, end: PartitionBasis) -> Words:
        """The entries of events first seen between two bases."""
        number = self._numbers.get(start.partition_id)
        if number is None:
            return self._known.recent.entries[:0]
        first, last = place(start), place(end)
        parts = self._known.overlapping(connection, self.row.projection_id, number, first + 1, last)
        return np.concatenate([self._between(entries, number, first, last) for entries in parts])

    def _between(self, entries: Words, number: int, first: int, last: int) -> Words:
        of_partition: Words = entries[entries[:, POSITION_WORD] == number]
        inside: npt.NDArray[np.bool_]
        if self._one_word:
            offsets = of_partition[:, POSITION_WORD + 1].astype(np.int64)
            inside = (offsets > first) & (offsets <= last)
        else:
            places = [int(words_offset(row[POSITION_WORD + 1 :])) for row in of_partition]
            inside = np.array([first < offset <= last for offset in places], np.bool_)
        entries_inside: Words = of_partition[inside]
        return entries_inside

    def _rows(
        self, connection: Connection[Any], table: str, columns: str, start: PartitionBasis, end: PartitionBasis
    ) -> list[tuple[Any, ...]]:
        return connection.execute(
            f"SELECT {columns} FROM ofp.{table} WHERE projection_id = %s AND partition_id = %s"
            " AND record_offset::numeric > %s AND record_offset::numeric <= %s ORDER BY record_offset::numeric",
            (self.row.projection_id, start.partition_id, place(start), place(end)),
        ).fetchall()

    def _failures(
        self, connection: Connection[Any], start: PartitionBasis, end: PartitionBasis, *, is_partial: bool
    ) -> dict[str, Failure]:
        """Offset to reason and groups, of the records that feed nothing, or of those that some groups cannot use."""
        rows = self._rows(connection, "apply_failure", "record_offset, reason, groups, partial", start, end)
        return {offset: (reason, groups) for offset, reason, groups, partial in rows if partial == is_partial}

    def _classify(
        self, connection: Connection[Any], batch: RecordBatch, last: int, router: Router, index: IdentityIndex, tally: _Tally
    ) -> None:
        count = sum(1 for offset in batch.offsets if order(offset) <= last)
        for record in batch.unreadable:
            if order(record.offset) <= last:
                tally.fail(str(record.offset))
        if not count:
            return
        own_pins = pins_digest(self.row.pins)
        belongs = np.array([pins_digest(pins) == own_pins for pins in batch.pins])[batch.pins_index[:count]]
        skew = self._plane.profile.clock_skew_us
        future = belongs & (batch.ts[:count] > batch.admitted_at[:count] + skew)
        for record_index in np.flatnonzero(~belongs).tolist():
            tally.foreign(str(batch.offsets[record_index]))
        for record_index in np.flatnonzero(future).tolist():
            tally.fail(str(batch.offsets[record_index]))
        keep = np.flatnonzero(belongs & ~future)
        if not len(keep):
            return
        kept_records = keep.tolist()
        routed_batch = router.route(
            event_types=[batch.event_types[i] for i in kept_records],
            event_ids=[batch.event_ids[i] for i in kept_records],
            schema_versions=[batch.schema_versions[i] for i in kept_records],
            ts=batch.ts[keep],
            payload_hashes=[batch.payload_hashes[i] for i in kept_records],
            payloads=[batch.payloads[i] for i in kept_records],
            amends=[batch.amends[i] for i in kept_records],
        )
        applied_indexes = np.flatnonzero(routed_batch.status == APPLIED)
        words = np.zeros((len(applied_indexes), self._width), np.uint64)
        words[:, 0:2] = routed_batch.id_digest[applied_indexes]
        words[:, 2:4] = routed_batch.tie_digest[applied_indexes]
        identities = dict(zip(applied_indexes.tolist(), words, strict=True))
        older = self._known.older(connection, self.row.projection_id, words)
        statuses, _ = index.admit(words, older.status)
        is_known = dict(zip(applied_indexes.tolist(), (statuses == DUPLICATE).tolist(), strict=True))
        for failure in routed_batch.group_failures:
            tally.fail_partly(str(batch.offsets[kept_records[failure.index]]), (failure.reason.value, failure.group_names))
        pruned_to = self.row.pruned_to
        for routed_index, (record_index, status) in enumerate(zip(kept_records, routed_batch.status.tolist(), strict=True)):
            offset = str(batch.offsets[record_index])
            if status == APPLIED:
                identity = identities[routed_index][:POSITION_WORD].tobytes()
                old = pruned_to is not None and int(batch.ts[record_index]) <= pruned_to
                tally.apply(offset, identity, is_known[routed_index], old)
            elif status == UNKNOWN_TYPE:
                tally.ignore()
            else:
                tally.fail(offset)


def _by_reason(failures: Iterable[Failure]) -> dict[str, int]:
    return dict(sorted(Counter(reason for reason, _ in failures).items()))


class _Tally:
    """Tally of the records compared so far."""

    def __init__(self, here: dict[str, bytes], failures: dict[str, Failure], group_failures: dict[str, Failure]) -> None:
        self._here = here
        self._failures = failures
        self._group_failures = group_failures
        self._counts: Counter[str] = Counter()
        self.found_offsets: set[str] = set()
        self.failed_offsets: set[str] = set()
        self.partial_offsets: set[str] = set()
        self.lost_offsets: list[str] = []
        self.invented_offsets: list[str] = []

    def apply(self, offset: str, identity: bytes, is_known: bool, old: bool) -> None:
        self._counts["records"] += 1
        if self._here.get(offset) == identity:
            self._counts["events"] += 1
            self.found_offsets.add(offset)
        elif is_known:
            self._counts["duplicates"] += 1
        elif old:
            self._counts["forgotten"] += 1
        else:
            self.lost_offsets.append(offset)

    def fail(self, offset: str) -> None:
        self._counts["records"] += 1
        if offset in self._failures:
            self.failed_offsets.add(offset)
        else:
            self.lost_offsets.append(offset)

    def fail_partly(self, offset: str, failure: Failure) -> None:
        """An event that some groups cannot use, besides its fate."""
        if self._group_failures.get(offset) == failure:
            self.partial_offsets.add(offset)
        else:
            self.lost_offsets.append(offset)

    def foreign(self, offset: str) -> None:
        """Of another run: a failure if that run was not active here, else none of ours."""
        if offset in self._failures:
            self.fail(offset)
        else:
            self.ignore()

    def ignore(self) -> None:
        self._counts["records"] += 1
        self._counts["ignored"] += 1

    def verification(self) -> Verification:
        return Verification(
            records=self._counts["records"],
            events=self._counts["events"],
            duplicates=self._counts["duplicates"],
            failures=_by_reason(self._failures[offset] for offset in self.failed_offsets),
            group_failures=_by_reason(self._group_failures[offset] for offset in self.partial_offsets),
            ignored=self._counts["ignored"],
            forgotten=self._counts["forgotten"],
            lost=tuple(self.lost_offsets[:_SHOWN]),
            invented=tuple(self.invented_offsets[:_SHOWN]),
        )
