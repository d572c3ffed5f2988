"""Which events a projection knows: an exact set of identities, of any size, in bounded memory.

What became known lately is in memory (an `IdentityIndex`, as large as the runs in the store that are no segment yet); everything
else is in segments, of which a process holds the filters at most. Memory and store say the same at each version of the
projection, so what is a copy does not depend on when a process started. After a commit that was lost the recent runs are read
again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg import Connection

from ofp_platform.online.state.identity_index import ANOMALY, DUPLICATE, NEW, IdentityIndex
from ofp_platform.online.state.identity_pages import (
    ABSENT,
    OTHER,
    SAME,
    IdentityFilter,
    SegmentShape,
    Words,
    prefixes,
    search_pages,
)
from ofp_platform.online.state.identity_segments import (
    BUILDING,
    LEAVING,
    WHOLE,
    Segment,
    begin_segment,
    delete_groups,
    finish_segment,
    identities_of_groups,
    identity_bounds,
    read_filter,
    read_identities,
    read_pages,
    read_segments,
    retire_segment,
    united_bounds,
    write_groups,
)

Codes = npt.NDArray[np.int8]
_PAGES_AT_ONCE = 4_096
_QUERIES_AT_ONCE = 16_384
_PAGE_BITS = 40
"""Of the number of a page; a segment has at most 2^40."""
_SCANNED = 100_000
_STATUS = np.array([NEW, DUPLICATE, ANOMALY], np.int8)
assert (ABSENT, SAME, OTHER) == (0, 1, 2)


@dataclass(frozen=True)
class IdentityPolicy:
    """How much of the known identities a process keeps in memory, and how the store keeps them.

    `recent`: identities that become a segment of level 1 together (in memory there are half as many more, and those of a commit);
    `fan_in`: segments of a level that become one of the next; `filter_bytes`: memory for filters, of the newest segments first. A
    segment without a filter is looked up in the store for every id. `load_bytes`: filters read before one commit.
    """

    recent: int = 1 << 19
    fan_in: int = 32
    filter_bytes: int = 512 << 20
    load_bytes: int = 64 << 20


@dataclass(frozen=True, eq=False)
class OlderIdentities:
    """Fates of queries by what the segments know: `status` int8[n] (NEW, DUPLICATE, ANOMALY) and, of anomalies, the earliest
    identity of the id, uint64[n, w]."""

    status: Codes
    earliest: Words

    def part(self, start: int, stop: int) -> OlderIdentities:
        """That of the queries [start, stop)."""
        return OlderIdentities(self.status[start:stop], self.earliest[start:stop])


class KnownIdentities:
    """The set of events of segment projection. Not safe for threads.

    What `admit`, `record`, `prune` and `step` change here holds once the transaction commits; if it does not: `forget`.
    """

    def __init__(self, width: int, policy: IdentityPolicy | None = None) -> None:
        """`width`: words of an identity."""
        self._width = width
        self._policy = policy or IdentityPolicy()
        self._filters: dict[tuple[int, datetime], IdentityFilter] = {}
        self.forget()

    def forget(self) -> None:
        """Remember nothing that a commit may change. Filters stay: a segment that is whole does not change."""
        self.recent = IdentityIndex(self._width)
        self._runs: list[tuple[int, int, int]] = []  # version, where it ends among the recent, greatest event time
        self._segments: list[Segment] = []
        self._credit = self._stored_credit = 0

    def load(self, connection: Connection[Any], projection_id: int) -> None:
        """Read what the store knows, in the transaction that reads the projection's row."""
        runs = connection.execute(
            "SELECT version, max_ts, content FROM ofp.identity_run WHERE projection_id = %s ORDER BY version",
            (projection_id,),
            binary=True,
        )
        for version, max_ts, content in runs:
            self.recent.load(np.frombuffer(content, np.uint64).reshape(-1, self._width))
            self._runs.append((version, len(self.recent), max_ts))
        self._segments = read_segments(connection, projection_id)
        row = connection.execute(
            "SELECT identity_credit FROM ofp.projection WHERE projection_id = %s", (projection_id,)
        ).fetchone()
        self._credit = self._stored_credit = 0 if row is None else int(row[0])
        self._keep_filters()

    # ---- looking up -----------------------------------------------------------------------------------------------

    @property
    def has_segments(self) -> bool:
        """Whether there is anything to look up in the store."""
        return bool(self._whole())

    def _whole(self, level: int | None = None) -> list[Segment]:
        """The whole segments, all or those of a level, the oldest first."""
        whole = [segment for segment in self._segments if segment.state == WHOLE and level in (None, segment.level)]
        return sorted(whole, key=attrgetter("last_version"))

    def _building(self) -> dict[int, Segment]:
        """The segment that is being written, by level."""
        return {segment.level: segment for segment in self._segments if segment.state == BUILDING}

    def older(self, connection: Connection[Any], projection_id: int, queries: Words) -> OlderIdentities:
        """Look queries, uint64[n, >=4] (id and tie first), up in the segments.

        Raises:
            PageCorrupt: what a segment must have is missing, or not as it was written. Where the projection moved meanwhile, that
                is no fault of the store.
        """
        codes = np.full(len(queries), ABSENT, np.int8)
        earliest = np.zeros((len(queries), self._width), np.uint64)
        whole = self._whole()
        self._load_filters(connection, projection_id, whole)
        queries = np.ascontiguousarray(queries)
        for begin in range(0, len(queries) if whole else 0, _QUERIES_AT_ONCE):
            end = begin + _QUERIES_AT_ONCE
            self._look_up(connection, projection_id, whole, queries[begin:end], codes[begin:end], earliest[begin:end])
        return OlderIdentities(_STATUS[codes], earliest)

    def _look_up(
        self,
        connection: Connection[Any],
        projection_id: int,
        whole: Sequence[Segment],
        queries: Words,
        codes: Codes,
        earliest: Words,
    ) -> None:
        """Set codes and earliest identities of some queries: those that pass a filter are looked up, oldest segments first."""
        candidates, places = [], []
        for number, segment in enumerate(whole):
            identity_filter = self._filters.get(segment.name)
            passing = None if identity_filter is None else np.flatnonzero(identity_filter.passes(queries))
            candidates.append(np.arange(len(queries)) if passing is None else passing)
            places.append(prefixes(queries[candidates[-1], 0], segment.shape.page_bits) + (number << _PAGE_BITS))
        pages, page_of = np.unique(np.concatenate(places), return_inverse=True)
        order = np.argsort(page_of, kind="stable")
        query_of = np.concatenate(candidates)[order]
        page_of = page_of[order]
        for start in range(0, len(pages), _PAGES_AT_ONCE):
            segment_ids = [whole[number].segment_id for number in (pages[start : start + _PAGES_AT_ONCE] >> _PAGE_BITS).tolist()]
            numbers = (pages[start : start + _PAGES_AT_ONCE] & ((1 << _PAGE_BITS) - 1)).tolist()
            contents = read_pages(connection, projection_id, list(zip(segment_ids, numbers, strict=True)))
            begin, end = np.searchsorted(page_of, (start, start + _PAGES_AT_ONCE))
            search_pages(contents, page_of[begin:end] - start, query_of[begin:end], queries, codes, earliest)

    def overlapping(self, connection: Connection[Any], projection_id: int, number: int, first: int, last: int) -> Iterator[Words]:
        """The recent identities and, some groups at a time, those of segments with positions of a partition in [first, last].

        Raises:
            PageCorrupt: see `older`.
        """
        yield self.recent.entries
        for segment in self._whole():
            bounds = segment.bounds.get(number)
            if bounds is None or bounds[1] < first or bounds[0] > last:
                continue
            groups = replace(segment, place=0).groups_for(_SCANNED)
            for begin in range(0, segment.shape.groups, groups):
                end = min(segment.shape.groups, begin + groups)
                yield read_identities(connection, projection_id, [segment], segment.shape.group_bits, begin, end, self._width)

    def _load_filters(self, connection: Connection[Any], projection_id: int, whole: Sequence[Segment]) -> None:
        """Read the filters that are missing, of the newest segments first, as far as the policy lets."""
        total_bytes = read_bytes = 0
        for segment in reversed(whole):
            size = IdentityFilter.size(segment.shape)
            total_bytes += size
            if total_bytes > self._policy.filter_bytes:
                self._filters.pop(segment.name, None)
            elif segment.name not in self._filters and (read_bytes == 0 or read_bytes + size <= self._policy.load_bytes):
                self._filters[segment.name] = read_filter(connection, projection_id, segment)
                read_bytes += size

    def _keep_filters(self) -> None:
        names = {segment.name for segment in self._whole()}
        self._filters = {name: self._filters[name] for name in names & self._filters.keys()}

    # ---- taking in ------------------------------------------------------------------------------------------------

    def admit(self, words: Words, older: OlderIdentities | None = None) -> tuple[Codes, dict[int, Words]]:
        """Status of each event in order (NEW, DUPLICATE, ANOMALY) and, by index, the earliest identity of each anomaly's id.

        `older` is what the segments know of them (`older`); without, nothing.
        """
        status, where = self.recent.admit(words, None if older is None else older.status)
        earliest = {}
        for index in np.flatnonzero(status == ANOMALY).tolist():
            is_older = older is not None and older.status[index] == ANOMALY
            earliest[index] = older.earliest[index] if older is not None and is_older else self.recent.entry(int(where[index]))
        return status, earliest

    def record(self, connection: Connection[Any], projection_id: int, version: int, max_ts: int) -> None:
        """Write what was admitted since the last commit, as the run of this commit or, of a large one, in a segment at once."""
        content = self.recent.entries[self._runs[-1][1] if self._runs else 0 :]
        if not len(content):
            return
        if self._is_large(len(content)):
            self._record_segment(connection, projection_id, (version, len(self.recent), max_ts))
            # its identities are written to the first level already
            self._credit += 2 * len(content) * max(segment.level for segment in self._segments)
            return
        connection.execute(
            "INSERT INTO ofp.identity_run VALUES (%s, %s, %s, %s, %s)",
            (projection_id, version, len(content), max_ts, content.tobytes()),
            binary=True,
        )
        self._runs.append((version, len(self.recent), max_ts))
        # each identity is written to a level once, and deleted there once
        self._credit += 2 * len(content) * (1 + max((segment.level for segment in self._segments), default=1))

    def _is_large(self, count: int) -> bool:
        """Whether so many new identities make a segment: of them in the main, and no less than a third of an ordinary one."""
        return 1 not in self._building() and 2 * count >= len(self.recent) and 3 * count >= self._policy.recent

    def _record_segment(self, connection: Connection[Any], projection_id: int, run: tuple[int, int, int]) -> None:
        """Write a segment of level 1, all of it, of the runs that there are and of one that is not written."""
        runs = [*self._runs, run]
        segment = self._begin_first(connection, projection_id, runs)
        written = write_groups(connection, projection_id, segment, segment.shape.groups, self.recent.entries)
        self._segments.append(finish_segment(connection, projection_id, written))
        stored_runs, self._runs = {version for version, _, _ in self._runs}, runs
        self._drop_runs(connection, projection_id, stored_runs | {run[0]})

    def prune(self, connection: Connection[Any], projection_id: int, horizon: int) -> None:
        """Forget runs and segments that lie wholly at or behind the horizon, but for those that a segment is being made of."""
        building = self._building()

        def is_source(level: int, version: int) -> bool:
            return level + 1 in building and building[level + 1].covers(version)

        old_runs = {version for version, _, max_ts in self._runs if max_ts <= horizon and not is_source(0, version)}
        self._drop_runs(connection, projection_id, old_runs)
        for segment in self._whole():
            if segment.max_ts <= horizon and not is_source(segment.level, segment.last_version):
                self._replace(segment, retire_segment(connection, projection_id, segment))

    # ---- segments -------------------------------------------------------------------------------------------------

    def step(self, connection: Connection[Any], projection_id: int) -> None:
        """Go on with what is being written and deleted, in proportion to what this commit brought.

        What is left of the proportion is kept in the store, so that how far the segments are depends on the commits alone.
        """
        self._work(connection, projection_id)
        if self._next_work() is None:
            self._credit = 0
        if self._credit != self._stored_credit:
            connection.execute(
                "UPDATE ofp.projection SET identity_credit = %s WHERE projection_id = %s", (self._credit, projection_id)
            )
            self._stored_credit = self._credit

    def _work(self, connection: Connection[Any], projection_id: int) -> None:
        self._begin(connection, projection_id)
        while self._credit > 0 and (segment := self._next_work()) is not None:
            groups = segment.groups_for(self._credit)
            self._credit -= max(1, (segment.entries * groups) >> segment.shape.group_bits)
            if segment.state == LEAVING:
                self._replace(segment, delete_groups(connection, projection_id, segment, groups))
            else:
                identities = self._sources(connection, projection_id, segment, groups)
                further = write_groups(connection, projection_id, segment, groups, identities)
                self._replace(segment, further)
                if further.place == further.shape.groups:
                    self._finish(connection, projection_id, further)
                    self._begin(connection, projection_id)

    def _next_work(self) -> Segment | None:
        """The segment to go on with: first one that is written, the lowest level before the others, since memory waits for it."""
        unfinished = [segment for segment in self._segments if segment.state != WHOLE]
        return min(unfinished, key=lambda segment: (segment.state == LEAVING, segment.level, segment.segment_id), default=None)

    def _begin(self, connection: Connection[Any], projection_id: int) -> None:
        """Begin the segments for which there is enough."""
        building = self._building()
        runs_before = next((number for number, (_, end, _) in enumerate(self._runs) if end >= self._policy.recent), None)
        if 1 not in building and runs_before is not None:
            self._segments.append(self._begin_first(connection, projection_id, self._runs[: runs_before + 1]))
        for level in sorted({segment.level for segment in self._whole()}):
            sources = self._whole(level)[: self._policy.fan_in]
            if level + 1 in building or len(sources) < self._policy.fan_in:
                continue
            entries = sum(segment.entries for segment in sources)
            self._segments.append(
                begin_segment(
                    connection,
                    projection_id,
                    level=level + 1,
                    after_version=sources[0].after_version,
                    last_version=sources[-1].last_version,
                    entries=entries,
                    max_ts=max(segment.max_ts for segment in sources),
                    bounds=united_bounds(segment.bounds for segment in sources),
                    shape=SegmentShape.of(entries, min(segment.shape.page_bits for segment in sources)),
                )
            )

    def _begin_first(self, connection: Connection[Any], projection_id: int, runs: Sequence[tuple[int, int, int]]) -> Segment:
        """Begin a segment of level 1 of the first runs."""
        version, end, _ = runs[-1]
        return begin_segment(
            connection,
            projection_id,
            level=1,
            after_version=runs[0][0] - 1,
            last_version=version,
            entries=end,
            max_ts=max(max_ts for _, _, max_ts in runs),
            bounds=identity_bounds(self.recent.entries[:end]),
            shape=SegmentShape.of(end),
        )

    def _sources_of(self, segment: Segment) -> list[Segment]:
        """The segments that it is made of, the oldest first."""
        return [source for source in self._whole(segment.level - 1) if segment.covers(source.last_version)]

    def _sources(self, connection: Connection[Any], projection_id: int, segment: Segment, groups: int) -> Words:
        """The identities of its next groups, those of one id in the order in which they became known."""
        if segment.level == 1:
            end = max(end for version, end, _ in self._runs if version <= segment.last_version)
            return identities_of_groups(self.recent.entries[:end], segment, groups)
        first, end = segment.place, segment.place + groups
        bits = segment.shape.group_bits
        return read_identities(connection, projection_id, self._sources_of(segment), bits, first, end, self._width)

    def _finish(self, connection: Connection[Any], projection_id: int, segment: Segment) -> None:
        """Let a written segment stand in the place of what it was made of."""
        sources = self._sources_of(segment)
        whole = finish_segment(connection, projection_id, segment)
        if segment.level == 1:
            self._drop_runs(connection, projection_id, {version for version, _, _ in self._runs if segment.covers(version)})
        for source in sources:
            self._replace(source, retire_segment(connection, projection_id, source))
        self._replace(segment, whole)

    def _drop_runs(self, connection: Connection[Any], projection_id: int, versions: set[int]) -> None:
        """Delete runs from the store, and what they brought from memory."""
        if not versions:
            return
        connection.execute(
            "DELETE FROM ofp.identity_run WHERE projection_id = %s AND version = ANY(%s)", (projection_id, sorted(versions))
        )
        is_kept = np.ones(len(self.recent), np.bool_)
        runs = []
        begin = end_of_kept = 0
        for version, end, max_ts in self._runs:
            if version in versions:
                is_kept[begin:end] = False
            else:
                end_of_kept += end - begin
                runs.append((version, end_of_kept, max_ts))
            begin = end
        self._runs = runs
        self.recent.keep(is_kept)

    def _replace(self, segment: Segment, by: Segment | None) -> None:
        self._segments = [other for other in self._segments if other is not segment] + ([] if by is None else [by])
        if by is None or by.state != WHOLE:
            self._filters.pop(segment.name, None)
