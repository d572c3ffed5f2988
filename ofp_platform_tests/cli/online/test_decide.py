"""`ofp decide`, and the last stretch of a replay that the demo decides on."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ofp_platform.cli.demo.decision_stops import find_stops
from ofp_platform.cli.demo.replay import project_available
from ofp_platform.cli.online.decide import point_of, words_of
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.decisions.event_reader import EventReader
from ofp_platform.decisions.loop import Tally
from ofp_platform.online.plane import Plane
from ofp_platform_tests.cli.conftest import OfflinePlane

HOUR = 3_600_000_000


def reader(plane: Plane) -> EventReader:
    return EventReader(plane.log, plane.profile.context_pins, "card_payment", plane.profile.clock_skew_us)


def decision_count(plane: Plane) -> int:
    with plane.pool.connection() as connection:
        row = connection.execute("SELECT count(*) FROM ofp.decision_record").fetchone()
    assert row is not None
    return int(row[0])


def test_decisions_through_a_service_of_its_own(offline: OfflinePlane) -> None:
    plane = offline.labelled.plane
    project_available(plane.projector(plane.ensure_live()), 1_000, lambda records: None)
    earlier_count = decision_count(plane)
    said = offline.ofp("decide", "--count", "40", "--connections", "2")
    found = re.match(r"(\d+) decisions recorded \(.*, (\d+) refused as AS_OF_BEFORE_HORIZON, in ", said.out)
    assert found is not None, said
    # two days of payments: those of the first lie behind what lateness allows, and that is said
    assert said.code == 1
    recorded, refused = (int(count) for count in found.groups())
    assert 0 < recorded <= 40 - refused
    assert decision_count(plane) == earlier_count + recorded
    assert offline.ofp("decide", "--count", "5").out.startswith("0 decisions recorded, 5 known already")


def test_a_service_that_is_not_there(offline: OfflinePlane) -> None:
    assert offline.ofp("decide", "--count", "400", "--url", "http://127.0.0.1:9").refused()


def test_no_rule_for_the_pack(offline: OfflinePlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofp_platform.decisions.decision_point.SHIPPED", {})
    with pytest.raises(CommandRefused, match="no rule of decision is declared for pack card_payments"):
        point_of(offline.labelled.plane)


def test_a_tally_in_words() -> None:
    tally = Tally(recorded=3, known=2, unusable=1)
    tally.outcomes.update({"approve": 2, "decline": 1})
    tally.refused.update({"AS_OF_BEFORE_HORIZON": 4})
    assert words_of(tally) == (
        "3 decisions recorded (2 approve, 1 decline), 2 known already, 1 events lack a field, 4 refused as AS_OF_BEFORE_HORIZON"
    )


@pytest.mark.parametrize(("records", "stops", "longest"), [(100, 10, 12 * HOUR), (100, 3, HOUR), (10_000, 7, 48 * HOUR)])
def test_the_stops_of_a_stretch(offline: OfflinePlane, records: int, stops: int, longest: int) -> None:
    plane = offline.labelled.plane
    ends = plane.log.ends()
    begin, stretch = find_stops(reader(plane), ends, records, stops, longest)
    assert stretch[-1].basis == ends
    total = sum(plane.log.ordinal_lag(begin).values())
    assert total == min(records, sum(plane.log.ordinal_lag(begin.model_copy(update={"partitions": ()})).values()))
    before = begin
    seen = []
    for stop in stretch:
        for event in stop.events:
            assert stop.basis.contains(event.position)
            assert not before.contains(event.position)
        seen += [event.position for event in stop.events]
        before = stop.basis
    expected = [event.position for page in reader(plane).pages(begin) for event in page.events]
    assert sorted(seen, key=str) == sorted(expected, key=str)
    # no stop but of records of one instant spans more than it may
    for one, other in zip([begin, *(stop.basis for stop in stretch)], (stop.basis for stop in stretch), strict=False):
        admitted = []
        for part in other.partitions:
            batch = plane.log.read(part.partition_id, one.by_partition()[part.partition_id], 10_000)
            count = int(part.offset) - int(one.by_partition()[part.partition_id].offset)
            admitted += batch.admitted_at[:count].tolist()
        assert np.ptp(admitted) <= longest if admitted else True
