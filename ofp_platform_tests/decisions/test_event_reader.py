"""The events of one type out of a log, between two bases: all of them, and nothing is read that stands behind the second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.decisions.event_reader import EventReader
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.online.plane import Plane
from ofp_platform.vocabulary.position import Basis, make_basis
from ofp_platform_tests.oracle.simulated_log import append, profile


@pytest.fixture
def plane(dsn: str, tmp_path: Path) -> Iterator[Plane]:
    with Plane.open(profile(tmp_path), dsn) as opened:
        append(opened.log)
        yield opened


def reader_of(plane: Plane) -> EventReader:
    return EventReader(plane.log, plane.profile.context_pins, "card_payment", plane.profile.clock_skew_us)


def behind(plane: Plane, **offsets: int) -> Basis:
    """A basis of the log, its partitions called `p0000` and so on."""
    kind = plane.log.position_kind
    return make_basis(
        plane.log.stream_name, {name.removeprefix("p"): kind.basis(name.removeprefix("p"), at) for name, at in offsets.items()}
    )


def test_the_events_between_two_bases_are_all_of_them_and_no_others(plane: Plane) -> None:
    reader = reader_of(plane)
    every = [event for page in reader.pages() for event in page.events]
    begin, end = behind(plane, p0000=7, p0001=0), behind(plane, p0000=90, p0001=51)
    wanted = [event.event_id for event in every if end.contains(event.position) and not begin.contains(event.position)]
    assert len(wanted) > 50
    for records in (1, 40, 4_000):
        found = [event.event_id for page in reader.between(begin, end, records) for event in page.events]
        assert sorted(found) == sorted(wanted)
    # a partition that nobody has begun is read from its start; one that the second does not name is left out
    one = behind(plane, p0001=51)
    assert set(reader.ids_between(behind(plane), one)) == {event.event_id for event in every if one.contains(event.position)}
    assert list(reader.ids_between(begin, begin)) == []


def test_what_is_appended_meanwhile_is_not_read(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who appends faster than it is read would keep it reading for ever."""
    reader, end = reader_of(plane), plane.log.ends()
    wanted = {event.event_id for page in reader.pages() for event in page.events}
    read_rows = PostgresLog._read_rows
    reads: list[Any] = []

    def append_and_read(log: PostgresLog, *asked: Any) -> dict[str, list[tuple[Any, ...]]]:
        append(plane.log)
        reads.append(asked)
        assert len(reads) <= 2, "it reads behind the end"
        return read_rows(log, *asked)

    monkeypatch.setattr(PostgresLog, "_read_rows", append_and_read)
    assert set(reader.ids_between(behind(plane), end)) == wanted
