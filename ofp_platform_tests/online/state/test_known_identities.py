"""Known identities against a dict: of any number, in pieces of any size, whoever goes on with them and whatever is lost."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofp_platform.online.state.identity_index import ANOMALY, DUPLICATE, NEW
from ofp_platform.online.state.identity_pages import PageCorrupt, SegmentShape, Words, pack_pages, prefixes
from ofp_platform.online.state.identity_segments import WHOLE, begin_segment, read_segments
from ofp_platform.online.state.known_identities import IdentityPolicy, KnownIdentities
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform_tests.oracle.small_plane import SmallPlane

WORDS = 6
FAR = 2**64 - 1
TINY = IdentityPolicy(recent=12, fan_in=2)
UNFILTERED = IdentityPolicy(recent=12, fan_in=2, filter_bytes=0)


@pytest.fixture(scope="module")
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn, max_size=2) as opened:
        yield opened


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return iter(range(1_000_000))


def a_projection(pool: Pool, numbers: Iterator[int]) -> int:
    return SmallPlane(pool, f"known-{next(numbers)}", partitions=1).projection_id


class Model:
    """The identities by id, in the order in which they became known, each with the commit that brought it."""

    def __init__(self) -> None:
        self.by_id: dict[tuple[int, ...], list[tuple[int, ...]]] = {}

    def admit(self, rows: list[tuple[int, ...]]) -> list[tuple[int, tuple[int, ...] | None]]:
        fates: list[tuple[int, tuple[int, ...] | None]] = []
        for row in rows:
            same_id = self.by_id.setdefault(row[:2], [])
            if any(one[2:4] == row[2:4] for one in same_id):
                fates.append((DUPLICATE, None))
                continue
            fates.append((ANOMALY, same_id[0]) if same_id else (NEW, None))
            same_id.append(row)
        return fates


class _Lost(Exception):
    pass


class Process:
    """A projector's part: admits, records, prunes and steps in one transaction a commit."""

    def __init__(self, pool: Pool, projection_id: int, policy: IdentityPolicy) -> None:
        self.pool, self.projection_id = pool, projection_id
        self.known = KnownIdentities(WORDS, policy)
        self.start()

    def start(self) -> None:
        self.known.forget()
        with self.pool.connection() as connection:
            self.known.load(connection, self.projection_id)

    def commit(self, version: int, rows: list[tuple[int, ...]], *, lost: bool = False, horizon: int | None = None) -> list[Any]:
        queries = np.array(rows, np.uint64).reshape(-1, WORDS)
        with suppress(_Lost), self.pool.connection() as connection, connection.transaction():
            older = self.known.older(connection, self.projection_id, queries) if self.known.has_segments else None
            status, earliest = self.known.admit(queries, older)
            fates = [
                (code, tuple(earliest[index].tolist()) if index in earliest else None)
                for index, code in enumerate(status.tolist())
            ]
            self.known.record(connection, self.projection_id, version, version)
            if horizon is not None:
                self.known.prune(connection, self.projection_id, horizon)
            self.known.step(connection, self.projection_id)
            if lost:
                raise _Lost
            return fates
        self.start()
        return self.commit(version, rows, horizon=horizon)


IDS = st.one_of(
    st.tuples(st.sampled_from((0, 1, FAR, 1 << 63)), st.integers(0, 1)),
    st.tuples(st.integers(0, 40).map(lambda number: number * 0x9E3779B97F4A7C15 % 2**64), st.just(0)),
)
COMMITS = st.lists(
    st.tuples(st.lists(st.tuples(IDS, st.integers(0, 2)), max_size=30), st.sampled_from(("", "", "lost", "another", "again"))),
    max_size=14,
)


@settings(max_examples=60)
@given(COMMITS, st.sampled_from((TINY, UNFILTERED, IdentityPolicy(recent=5, fan_in=3, load_bytes=0), IdentityPolicy())))
def test_as_a_dict_would(pool: Pool, numbers: Iterator[int], commits: list[Any], policy: IdentityPolicy) -> None:
    projection_id = a_projection(pool, numbers)
    processes = [Process(pool, projection_id, policy)]
    model = Model()
    place = 0
    for version, (events, what) in enumerate(commits, 1):
        rows = [(*key, tie, 0, 0, place + index) for index, (key, tie) in enumerate(events)]
        place += len(rows)
        if what == "another":
            processes.append(Process(pool, projection_id, policy))
        elif what == "again":
            processes[-1].start()
        assert processes[-1].commit(version, rows, lost=what == "lost") == model.admit(rows)
    known = Process(pool, projection_id, policy).known
    rows = [row for same_id in model.by_id.values() for row in same_id]
    with pool.connection() as connection:
        stored = np.concatenate(list(known.overlapping(connection, projection_id, 0, 0, place)))
    assert sorted(map(tuple, stored.tolist())) == sorted(rows)


def many(rng: random.Random, commits: int, size: int) -> Iterator[list[tuple[int, ...]]]:
    place = 0
    for _ in range(commits):
        rows = []
        for _ in range(rng.randrange(size)):
            rows.append((rng.randrange(400) * 0x9E3779B97F4A7C15 % 2**64, rng.randrange(2), rng.randrange(2), 0, 0, place))
            place += 1
        yield rows


def states(pool: Pool, projection_id: int) -> tuple[list[int], int]:
    """Levels of the whole segments, and how many runs there are."""
    with pool.connection() as connection:
        levels = [segment.level for segment in read_segments(connection, projection_id) if segment.state == WHOLE]
        (runs,) = connection.execute(
            "SELECT count(*) FROM ofp.identity_run WHERE projection_id = %s", (projection_id,)
        ).fetchone() or (0,)
    return sorted(levels), runs


@pytest.mark.parametrize("policy", [TINY, UNFILTERED])
def test_levels_grow_and_memory_does_not(pool: Pool, numbers: Iterator[int], policy: IdentityPolicy) -> None:
    projection_id = a_projection(pool, numbers)
    process, model = Process(pool, projection_id, policy), Model()
    most = 0
    for version, rows in enumerate(many(random.Random(11), 300, 9), 1):
        assert process.commit(version, rows) == model.admit(rows)
        most = max(most, len(process.known.recent))
    levels, runs = states(pool, projection_id)
    assert most <= 3 * policy.recent
    assert runs <= 3 * policy.recent
    assert max(levels) >= 5  # fan-in 2: a level takes twice as many commits as the one before
    assert all(levels.count(level) <= 2 * policy.fan_in for level in levels)
    with pool.connection() as connection:
        pages = connection.execute(
            "SELECT count(*) FROM ofp.identity_page p WHERE p.projection_id = %s AND NOT EXISTS"
            " (SELECT FROM ofp.identity_segment s WHERE (s.projection_id, s.segment_id) = (p.projection_id, p.segment_id))",
            (projection_id,),
        ).fetchone()
    assert pages == (0,)  # nothing is left of what was replaced


def test_what_is_a_copy_does_not_depend_on_when_a_process_started(pool: Pool, numbers: Iterator[int]) -> None:
    """Pruned or not: a process that lives on says of each event what one says that has just read the store."""
    living, starting = a_projection(pool, numbers), a_projection(pool, numbers)
    old = Process(pool, living, TINY)
    seen = set()
    for version, rows in enumerate(many(random.Random(12), 200, 9), 1):
        horizon = version - 20 if version % 5 == 0 else None
        fates = old.commit(version, rows, horizon=horizon)
        assert Process(pool, starting, TINY).commit(version, rows, horizon=horizon) == fates
        seen |= {fate for fate, _ in fates}
        assert states(pool, living) == states(pool, starting)
    assert seen == {NEW, DUPLICATE, ANOMALY}
    levels, runs = states(pool, living)
    assert len(levels) < 30  # what lies behind the horizon goes
    assert runs < 40


@pytest.mark.parametrize("entries", [2**31 - 1, 2**31 + 5, 2**40])
def test_identities_past_every_bound_of_an_int(pool: Pool, numbers: Iterator[int], entries: int) -> None:
    """A segment that says it has more than 2^31 identities, of which the pages that are looked at exist."""
    projection_id = a_projection(pool, numbers)
    shape = SegmentShape.of(entries)
    rng = np.random.default_rng(3)
    known: Words = rng.integers(0, FAR, (200, WORDS), np.uint64, endpoint=True)
    known[:, 4] = 0
    strangers = rng.integers(0, FAR, (200, WORDS), np.uint64, endpoint=True)
    changed = known.copy()
    changed[:, 2] ^= np.uint64(1)
    with pool.connection() as connection:
        segment = begin_segment(
            connection,
            projection_id,
            level=4,
            after_version=0,
            last_version=1,
            entries=entries,
            max_ts=0,
            bounds={0: (0, entries)},
            shape=shape,
        )
        pages = np.unique(prefixes(np.concatenate([known[:, 0], strangers[:, 0]]), shape.page_bits)).tolist()
        for page in pages:
            entries_of_page = known[prefixes(known[:, 0], shape.page_bits) == page]
            (content,) = pack_pages(entries_of_page, page, page + 1, shape.page_bits)
            connection.execute(
                "INSERT INTO ofp.identity_page VALUES (%s, %s, %s, %s)", (projection_id, segment.segment_id, page, content)
            )
        connection.execute("UPDATE ofp.identity_segment SET state = 'whole' WHERE projection_id = %s", (projection_id,))
    process = Process(pool, projection_id, UNFILTERED)
    assert {fate for fate, _ in process.commit(2, list(map(tuple, known.tolist())))} == {DUPLICATE}
    assert process.commit(3, list(map(tuple, changed.tolist()))) == [(ANOMALY, tuple(row)) for row in known.tolist()]
    assert {fate for fate, _ in process.commit(4, list(map(tuple, strangers.tolist())))} == {NEW}


def test_a_page_or_filter_that_is_missing_is_no_absence(pool: Pool, numbers: Iterator[int]) -> None:
    projection_id = a_projection(pool, numbers)
    process = Process(pool, projection_id, TINY)
    rows = [(number << 60, 0, 0, 0, 0, number) for number in range(16)]
    process.commit(1, rows)
    process.commit(2, [(*row[:3], 1, 0, 20 + row[5]) for row in rows])
    assert states(pool, projection_id)[0] == [1, 1] or states(pool, projection_id)[0] == [2]
    with pool.connection() as connection:
        connection.execute("DELETE FROM ofp.identity_filter WHERE projection_id = %s", (projection_id,))
    with pytest.raises(PageCorrupt, match="0 parts"):
        Process(pool, projection_id, TINY).commit(3, rows)
    with pool.connection() as connection:
        connection.execute("DELETE FROM ofp.identity_page WHERE projection_id = %s", (projection_id,))
    with pytest.raises(PageCorrupt, match="are missing"):
        Process(pool, projection_id, UNFILTERED).commit(3, rows)
