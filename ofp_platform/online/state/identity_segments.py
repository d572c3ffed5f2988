"""Segments of identities in the store: read, looked up, and written a few groups with each commit.

Each commit leaves its new identities as one run (`ofp.identity_run`). Runs become a segment of level 1, and segments of a level
one of the next, group by group; until the last group is written nothing looks at the new segment, and then it stands in the place
of what it was made of. A segment that is replaced, or lies behind the horizon, goes group by group, too. So no commit does more
than in proportion to what it brings, whatever there is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from psycopg import Connection, RawCursor
from psycopg.rows import dict_row

from ofp_platform.online.state.binary_rows import Column, copy_rows
from ofp_platform.online.state.identity_index import POSITION_WORD, words_offset
from ofp_platform.online.state.identity_pages import (
    IdentityFilter,
    PageCorrupt,
    SegmentShape,
    Words,
    make_filter,
    pack_pages,
    prefixes,
    sorted_identities,
    unpack_pages,
)

BUILDING, WHOLE, LEAVING = "building", "whole", "leaving"

_COLUMNS = (
    "segment_id, level, state, after_version, last_version, entries, written, max_ts, bounds, page_bits, group_bits,"
    " group_blocks, place, made_at"
)
_PAGES = """
SELECT p.content
FROM unnest($2::bigint[], $3::bigint[]) WITH ORDINALITY AS k(segment_id, page, ord)
JOIN LATERAL (
    SELECT content FROM ofp.identity_page WHERE projection_id = $1 AND segment_id = k.segment_id AND page = k.page OFFSET 0
) AS p ON true
ORDER BY k.ord
"""
_PAGE_RANGES = """
SELECT k.ord - 1, p.content
FROM unnest($2::bigint[], $3::bigint[], $4::bigint[]) WITH ORDINALITY AS k(segment_id, low, high, ord)
JOIN LATERAL (
    SELECT page, content FROM ofp.identity_page
    WHERE projection_id = $1 AND segment_id = k.segment_id AND page >= k.low AND page < k.high OFFSET 0
) AS p ON true
ORDER BY k.ord, p.page
"""
_FILTER = "SELECT content FROM ofp.identity_filter WHERE projection_id = %s AND segment_id = %s ORDER BY part"

Bounds = Mapping[int, tuple[int, int]]
"""By partition number, the first and last position (a number) of the identities of a segment."""


@dataclass(frozen=True)
class Segment:
    """One segment: identities of the commits (after_version, last_version].

    `place`: the first group that is not written, or, of one that leaves, not deleted; `entries`: how many identities it gets,
    `written`: has; `max_ts`: their greatest event time, microseconds.
    """

    segment_id: int
    level: int
    state: str
    after_version: int
    last_version: int
    entries: int
    written: int
    max_ts: int
    bounds: Bounds
    shape: SegmentShape
    place: int
    made_at: datetime

    @property
    def name(self) -> tuple[int, datetime]:
        """By which a process knows it again: an id may be given twice where a recovery lost commits, a moment is not."""
        return self.segment_id, self.made_at

    def covers(self, version: int) -> bool:
        """Whether a commit is among those that it is made of."""
        return self.after_version < version <= self.last_version

    def groups_for(self, entries: int) -> int:
        """How many of the groups that are left hold about so many identities; at least one."""
        return min(self.shape.groups - self.place, max(1, (entries << self.shape.group_bits) // max(1, self.entries)))


def identity_bounds(entries: Words) -> dict[int, tuple[int, int]]:
    """First and last position of identities, by partition number."""
    bounds = {}
    for number in np.unique(entries[:, POSITION_WORD]).tolist():
        offsets = entries[entries[:, POSITION_WORD] == number, POSITION_WORD + 1 :]
        in_order = offsets[np.lexsort(offsets.T[::-1])]
        bounds[int(number)] = (int(words_offset(in_order[0])), int(words_offset(in_order[-1])))
    return bounds


def united_bounds(parts: Iterable[Bounds]) -> dict[int, tuple[int, int]]:
    """The bounds of several segments together."""
    union: dict[int, tuple[int, int]] = {}
    for bounds in parts:
        for number, (first, last) in bounds.items():
            low, high = union.get(number, (first, last))
            union[number] = (min(low, first), max(high, last))
    return union


def read_segments(connection: Connection[Any], projection_id: int) -> list[Segment]:
    """All segments of a projection, by their commits."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            f"SELECT {_COLUMNS} FROM ofp.identity_segment WHERE projection_id = %s ORDER BY last_version, level", (projection_id,)
        ).fetchall()
    return [_segment(row) for row in rows]


def _segment(row: dict[str, Any]) -> Segment:
    shape = SegmentShape(*(row.pop(name) for name in ("page_bits", "group_bits", "group_blocks")))
    bounds = {int(number): (int(first), int(last)) for number, (first, last) in json.loads(row.pop("bounds")).items()}
    return Segment(shape=shape, bounds=bounds, **row)


def read_filter(connection: Connection[Any], projection_id: int, segment: Segment) -> IdentityFilter:
    """The filter of a whole segment.

    Raises:
        PageCorrupt: a part of it is missing.
    """
    rows = connection.execute(_FILTER, (projection_id, segment.segment_id), binary=True).fetchall()
    return IdentityFilter(segment.shape, [content for (content,) in rows])


def read_pages(connection: Connection[Any], projection_id: int, places: Sequence[tuple[int, int]]) -> list[bytes]:
    """The pages at (segment, page), in that order.

    Raises:
        PageCorrupt: one is missing.
    """
    with RawCursor(connection) as cursor:
        segment_ids, pages = [segment_id for segment_id, _ in places], [page for _, page in places]
        rows = cursor.execute(_PAGES, (projection_id, segment_ids, pages), binary=True).fetchall()
    if len(rows) != len(places):
        raise _missing(projection_id, len(places) - len(rows), len(places))
    return [content for (content,) in rows]


def read_identities(
    connection: Connection[Any], projection_id: int, segments: Sequence[Segment], bits: int, first: int, end: int, width: int
) -> Words:
    """The identities of segments whose ids begin, in `bits` bits, with [first, end): segment by segment, each by id.

    Raises:
        PageCorrupt: a page is missing, or not as it was written.
    """
    ranges = [segment.shape.pages_of(first, end, bits) for segment in segments]
    with RawCursor(connection) as cursor:
        rows = cursor.execute(
            _PAGE_RANGES,
            (
                projection_id,
                [segment.segment_id for segment in segments],
                [low for low, _ in ranges],
                [high for _, high in ranges],
            ),
            binary=True,
        ).fetchall()
    page_count = sum(high - low for low, high in ranges)
    if len(rows) != page_count:
        raise _missing(projection_id, page_count - len(rows), page_count)
    return unpack_pages([content for _, content in rows], width)


def _missing(projection_id: int, missing: int, page_count: int) -> PageCorrupt:
    return PageCorrupt(
        f"{missing} of {page_count} pages of identities of projection {projection_id} are missing: build it anew"
        " (`ofp projection rebuild`)"
    )


def begin_segment(
    connection: Connection[Any],
    projection_id: int,
    *,
    level: int,
    after_version: int,
    last_version: int,
    entries: int,
    max_ts: int,
    bounds: Bounds,
    shape: SegmentShape,
) -> Segment:
    """Begin a segment; it has nothing yet."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            "INSERT INTO ofp.identity_segment (projection_id, segment_id, level, state, after_version, last_version, entries,"
            " written, max_ts, bounds, page_bits, group_bits, group_blocks, place)"
            " SELECT %(projection)s, coalesce(max(segment_id), 0) + 1, %(level)s, %(state)s, %(after)s, %(last)s, %(entries)s,"
            " 0, %(max_ts)s, %(bounds)s, %(page_bits)s, %(group_bits)s,"
            f" %(group_blocks)s, 0 FROM ofp.identity_segment WHERE projection_id = %(projection)s RETURNING {_COLUMNS}",
            {
                "projection": projection_id,
                "level": level,
                "state": BUILDING,
                "after": after_version,
                "last": last_version,
                "entries": entries,
                "max_ts": max_ts,
                "bounds": json.dumps(bounds),
                "page_bits": shape.page_bits,
                "group_bits": shape.group_bits,
                "group_blocks": shape.group_blocks,
            },
        ).fetchone()
    assert row is not None
    return _segment(row)


def write_groups(connection: Connection[Any], projection_id: int, segment: Segment, groups: int, identities: Words) -> Segment:
    """Write the next groups of a segment, which are these identities, in any order of ids. The segment as it then stands."""
    first, end = segment.place, segment.place + groups
    entries = sorted_identities(identities)
    first_page, end_page = segment.shape.pages_of(first, end)
    pages = pack_pages(entries, first_page, end_page, segment.shape.page_bits)
    filters = make_filter(entries, segment.shape, first, end)
    for table, place, first_place, contents in (("page", "page", first_page, pages), ("filter", "part", first, filters)):
        owner = {"projection_id": projection_id, "segment_id": segment.segment_id}
        columns = {name: Column.of_integers(np.full(len(contents), number)) for name, number in owner.items()}
        columns[place] = Column.of_integers(np.arange(first_place, first_place + len(contents)))
        columns["content"] = Column.of_bytes(contents)
        copy_rows(connection, f"ofp.identity_{table}", columns)
    segment = replace(segment, place=end, written=segment.written + len(entries))
    _move(connection, projection_id, segment)
    return segment


def identities_of_groups(identities: Words, segment: Segment, groups: int) -> Words:
    """Those of the identities that belong to the next groups of a segment."""
    groups_of = prefixes(np.ascontiguousarray(identities[:, 0]), segment.shape.group_bits)
    belonging: Words = identities[(groups_of >= segment.place) & (groups_of < segment.place + groups)]
    return belonging


def finish_segment(connection: Connection[Any], projection_id: int, segment: Segment) -> Segment:
    """Make a written segment whole: from now on it is looked at.

    Raises:
        PageCorrupt: it did not get what it is made of.
    """
    if segment.written != segment.entries:
        raise PageCorrupt(
            f"segment {segment.segment_id} of projection {projection_id} got {segment.written} of {segment.entries} identities"
        )
    whole = replace(segment, state=WHOLE, place=0)
    _move(connection, projection_id, whole)
    return whole


def retire_segment(connection: Connection[Any], projection_id: int, segment: Segment) -> Segment:
    """Let a whole segment go: from now on nothing looks at it, and its groups are deleted by and by."""
    leaving = replace(segment, state=LEAVING, place=0)
    _move(connection, projection_id, leaving)
    return leaving


def delete_groups(connection: Connection[Any], projection_id: int, segment: Segment, groups: int) -> Segment | None:
    """Delete the next groups of a leaving segment. None: it is gone."""
    first, end = segment.place, segment.place + groups
    first_page, end_page = segment.shape.pages_of(first, end)
    for table, column, low, high in (("identity_page", "page", first_page, end_page), ("identity_filter", "part", first, end)):
        connection.execute(
            f"DELETE FROM ofp.{table} WHERE projection_id = %s AND segment_id = %s AND {column} >= %s AND {column} < %s",
            (projection_id, segment.segment_id, low, high),
        )
    if end == segment.shape.groups:
        connection.execute(
            "DELETE FROM ofp.identity_segment WHERE projection_id = %s AND segment_id = %s", (projection_id, segment.segment_id)
        )
        return None
    segment = replace(segment, place=end)
    _move(connection, projection_id, segment)
    return segment


def _move(connection: Connection[Any], projection_id: int, segment: Segment) -> None:
    connection.execute(
        "UPDATE ofp.identity_segment SET state = %s, place = %s, written = %s WHERE projection_id = %s AND segment_id = %s",
        (segment.state, segment.place, segment.written, projection_id, segment.segment_id),
    )
