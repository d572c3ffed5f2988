"""The amendments of a replay: those of no event, and the events voided in the end, are those that the oracle knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from ofp_platform.offline.replay.amended_events import amended_events
from ofp_platform.offline.replay.archived_fold import divide
from ofp_platform.offline.replay.known_events import FoldedReplay
from ofp_platform.offline.replay.spark_fold import SparkFold
from ofp_platform.registry.pack import pack_content
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform_tests.offline.replay.test_archived_fold import World as ArchivedWorld
from ofp_platform_tests.offline.replay.test_archived_fold import amending_world
from ofp_platform_tests.offline.replay.test_known_events import folded, report
from ofp_platform_tests.oracle import fold
from ofp_platform_tests.oracle.fold import Record, time_text
from ofp_platform_tests.oracle.replayed import world_registry
from ofp_platform_tests.oracle.strategies import PINS, SECOND, SKEW, START, World, worlds

RUN = ContextPins(**PINS)
END_OF_TIME = 2**62


def facts(replay: FoldedReplay) -> tuple[int, int, list[tuple[str, str]]]:
    """How many amendments, how many of no event, and the voided events."""
    amended = amended_events(replay, world_registry())
    assert len(set(amended.unmet)) == len(amended.unmet)
    return amended.amendments, len(amended.unmet), [tuple(row.values()) for row in amended.voided_events.to_pylist()]


def expected_facts(records: Any, basis: Any) -> tuple[int, int, list[tuple[str, str]]]:
    content = pack_content(world_registry().pack)
    known = fold.known_events(records, basis, PINS, content, SKEW)
    touching = [one for one in known.amendments.values() if one.touches]
    unmet = [
        one for one in touching if not any(fold.amends(one, content, name, event) for (_, name, _), event in known.events.items())
    ]
    in_force = fold.in_force(known, content, END_OF_TIME)
    voided = sorted({identity[:2] for identity in known.events if identity not in in_force})
    return len(touching), len(unmet), voided


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=60)
@given(worlds())
def test_they_are_those_that_the_oracle_leaves_out(tmp_path_factory: pytest.TempPathFactory, world: World) -> None:
    replay = folded(list(world.records), tmp_path_factory.mktemp("world") / "fold")
    assert facts(replay) == expected_facts(world.records, world.basis)


def test_a_fold_by_several_processes_finds_them(tmp_path: Path) -> None:
    world: ArchivedWorld = amending_world(7, tmp_path)
    alone, together = world.alone(tmp_path / "alone"), world.together(tmp_path / "together", 2)
    assert together is not None
    assert facts(together) == facts(alone)
    assert facts(alone)[2]


def test_an_amendment_of_no_event_is_named_where_it_first_stands(tmp_path: Path) -> None:
    payload = {"account_id": "a-1", "merchant_id": "m-1", "amount": 1, "status": "ok", "shop": "x", "online": True, "unread": 1}
    amends = {"event_class": "payment", "event_id": "e-1", "ts_utc": time_text(START), "kind": "void"}
    payment = {**report(0, "a").envelope, "event_type": "payment", "event_id": "e-1", "payload": payload}
    void = {**payment, "event_id": "a-1", "ts_utc": time_text(START + 1)}
    copies = [
        Record("p0", 0, START + SECOND, {**void, "amends": {**amends, "event_id": "e-2"}}),
        Record("p1", 0, START + SECOND, {**void, "amends": {**amends, "event_id": "e-2"}}),
        Record("p0", 1, START + SECOND, {**void, "event_id": "a-2", "amends": amends}),
        Record("p0", 2, START + SECOND, payment),
        Record(
            "p0", 3, START + SECOND, {**void, "event_id": "a-3", "amends": amends, "payload": {**payload, "account_id": "a-2"}}
        ),
    ]
    amended = amended_events(folded(copies, tmp_path / "fold", 1), world_registry())
    assert (amended.amendments, amended.unmet) == (3, (("p0", "0"), ("p0", "3")))
    assert amended.voided_events.to_pylist() == [{"event_class": "payment", "event_id": "e-1"}]


@pytest.mark.filterwarnings("ignore")  # Spark's own, of its JVM's pipes and its Pandas versions
def test_a_fold_on_spark_finds_them(tmp_path: Path, spark: Any) -> None:
    world = amending_world(7, tmp_path)
    folder = tmp_path / "fold"
    division = divide(world.archive, world.spans, world.cut_over, world_registry(), world.settings(folder), workers=None)
    spark_fold = SparkFold(spark, division, folder)
    replay = spark_fold.finish(batch for span in spark_fold.remaining_spans for batch in world.reader.batches(span, 7))
    assert facts(spark_fold.amended_part(replay, tmp_path / "amended")) == facts(world.alone(tmp_path / "alone"))
    assert not (tmp_path / "amended" / "identities").exists()


def test_no_shard_is_read_where_nothing_is_amended(tmp_path: Path) -> None:
    replay = folded([report(0, "e-1")], tmp_path / "fold")
    assert replay.amended_shards == ()
    assert facts(replay) == (0, 0, [])
    assert not (replay.folder / "sorted-account").exists()
