"""The fold of a replay: one fate for each record, whatever the batches, partitions and offsets look like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofp_platform.log.port import RefusalReason, UnreadableRecord
from ofp_platform.offline.replay.key_shards import KeyDigests, event_shard, event_width
from ofp_platform.offline.replay.known_events import FoldedReplay, fold_replay
from ofp_platform.registry.pack import pack_content
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.event_anomaly import EventAnomaly
from ofp_platform_tests.oracle import fold
from ofp_platform_tests.oracle.fold import Record, time_text
from ofp_platform_tests.oracle.replayed import part_basis, record_batches, world_registry
from ofp_platform_tests.oracle.strategies import PINS, SECOND, SKEW, START, World, worlds

RUN = ContextPins(**PINS)


def folded(records: list[Record], folder: Path, size: int = 5, *, dense: bool = True, shards: int = 2) -> FoldedReplay:
    return fold_replay(record_batches(records, size, dense=dense), world_registry(), RUN, SKEW, folder, shards=shards)


def report(offset: int, event_id: str, *, partition: str = "p0", merchant: str = "m-1", **more: Any) -> Record:
    envelope = {
        "event_id": event_id,
        "event_type": "report",
        "schema_version": "1",
        "ts_utc": time_text(START),
        **PINS,
        "payload": {"account_id": "a-1", "merchant_id": merchant},
        **more,
    }
    return Record(partition, offset, START + 10 * SECOND, envelope)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=60)
@given(worlds(), st.sampled_from((1, 4, 100)), st.booleans())
def test_each_record_has_the_fate_that_the_oracle_gives_it(
    tmp_path_factory: pytest.TempPathFactory, world: World, size: int, dense: bool
) -> None:
    found = folded(list(world.records), tmp_path_factory.mktemp("world") / "fold", size, dense=dense)
    known = fold.known_events(world.records, world.basis, PINS, pack_content(world_registry().pack), SKEW)
    foreign = sum(record.envelope["run_id"] != PINS["run_id"] for record in world.records)
    assert found.records == len(world.records)
    assert found.applied == known.applied
    assert (found.duplicates, found.ignored, found.other_run) == (known.duplicates, known.unknown, foreign)
    assert found.failed == len(known.failures)
    assert sum(found.group_failures.values()) == len(known.group_failures)
    for group in world_registry().groups:
        unfed = sum(group in groups for groups in known.group_failures.values())
        assert found.not_fed([group]) - found.not_fed([]) >= unfed
    assert found.watermark == known.watermark
    contents: dict[tuple[str, str], int] = {}
    for event_class, event_id, _ in (*known.events, *known.amendments):
        contents[event_class, event_id] = contents.get((event_class, event_id), 0) + 1
    assert sorted(one.event_id for one in found.anomalies) == sorted(name for (_, name), n in contents.items() if n > 1)
    for key_type in ("account", "merchant"):
        held = [found.events(world_registry(), key_type, shard) for shard in range(found.shards)]
        for events in held:
            for start, end in zip(events.starts, events.ends, strict=True):
                assert (np.diff(events.matrix[0, start:end]) >= 0).all()


@pytest.mark.parametrize("dense", [True, False])
def test_an_anomaly_names_every_position(tmp_path: Path, dense: bool) -> None:
    records = [
        report(0, "e-1"),
        report(1, "e-2"),
        report(0, "e-1", partition="p1", merchant="m-2"),
        report(1, "e-1", partition="p1"),
    ]
    found = folded(records, tmp_path / "fold", dense=dense)
    contents = (("p0", "0"), ("p1", "1")), (("p1", "0"),)
    if not dense:
        contents = (("p0", "7"), ("p1", "10000000000000000007")), (("p1", "7"),)
    assert found.anomalies == (EventAnomaly("report", "e-1", contents),)
    assert sorted(found.anomalies[0].positions) == sorted(position for content in contents for position in content)
    assert (found.applied, found.duplicates) == (3, 1)
    assert found.key_ids("merchant") == ["m-1", "m-2"]
    assert found.bound(part_basis("p1", 1, dense=dense)) == 1
    assert found.bound(part_basis("p1", 0, dense=dense)) == 0


def test_failures_are_counted_by_reason(tmp_path: Path) -> None:
    records = [
        report(0, "e-1", ts_utc=time_text(START + 10 * SECOND + SKEW + 1)),
        report(1, "e-2", payload={"account_id": "a-1"}),
        report(2, "e-3", seed=1),
        report(3, "e-4", run_id="run-2"),
        report(4, "e-5", event_type="unknown"),
        report(5, "e-1"),
    ]
    batches = record_batches(records, 10)
    batches[0] = replace(batches[0], unreadable=(UnreadableRecord(6, RefusalReason.INVALID_ENVELOPE, "no envelope"),))
    found = fold_replay(batches, world_registry(), RUN, SKEW, tmp_path / "fold")
    assert found.failures == {"FUTURE_EVENT": 1, "MALFORMED_PAYLOAD": 1, "WRONG_PINS": 1}
    assert found.group_failures == {"MISSING_KEY": 1}  # it feeds the groups of accounts
    assert (found.records, found.applied, found.ignored, found.other_run, found.failed) == (7, 2, 1, 1, 3)
    assert (found.not_fed([]), found.not_fed([("every", "v1")]), found.not_fed([("shop", "v1")])) == (3, 3, 4)
    assert found.watermark == START


def test_an_event_is_admitted_with_its_first_copy_that_applies(tmp_path: Path) -> None:
    early = replace(report(0, "e-1"), admitted_at=START - SKEW - 1)  # refused: too far ahead of its admission
    records = [early, report(1, "e-1"), replace(report(0, "e-1", partition="p1"), admitted_at=START + 4 * SECOND)]
    found = folded(records, tmp_path / "fold", shards=1)
    events = found.events(world_registry(), "account", 0)
    assert events.admitted_at.tolist() == [START + 4 * SECOND]
    assert sorted(map(tuple, events.copies.tolist())) == [(0, 0, 1), (0, 1, 0)]


@pytest.mark.parametrize("dense", [True, False])
def test_records_out_of_order_are_refused(tmp_path: Path, dense: bool) -> None:
    batches = record_batches([report(0, "e-1"), report(1, "e-2")], 1, dense=dense)
    with pytest.raises(ValueError, match="partition 'p0' come out of order"):
        fold_replay([*batches, batches[1]], world_registry(), RUN, SKEW, tmp_path / "again")
    backwards = record_batches([report(0, "e-1"), report(1, "e-2")], 2, dense=dense)[0]
    backwards = replace(backwards, offsets=backwards.offsets[::-1])
    with pytest.raises(ValueError, match="out of order"):
        fold_replay([backwards], world_registry(), RUN, SKEW, tmp_path / "backwards")


def test_an_empty_replay_knows_nothing(tmp_path: Path) -> None:
    found = fold_replay([], world_registry(), RUN, SKEW, tmp_path / "fold")
    assert (found.records, found.applied, found.watermark, found.anomalies) == (0, 0, None, ())
    with pytest.raises(FileExistsError):
        fold_replay([], world_registry(), RUN, SKEW, tmp_path / "fold")


def test_keys_are_told_apart_by_all_of_their_digest() -> None:
    layout = world_registry().layouts["merchant"]
    rows = np.zeros((4, event_width(layout)), np.int64)
    rows[:, 0] = 5  # one high half
    rows[:, 1] = (9, 2, 9, 2)
    rows[:, 2] = (1, 2, 3, 4)
    rows[:, 7] = (40, 30, 20, 10)
    events = event_shard(rows, layout)
    assert (events.key_high.tolist(), events.key_low.tolist()) == ([5, 5], [2, 9])
    assert events.matrix[0].tolist() == [10, 30, 20, 40]


def test_digests_do_not_depend_on_what_is_held() -> None:
    wanted = KeyDigests().columns(["a", "b", "c", "a"])
    small = KeyDigests(limit=2)
    small.columns(["a", "b"])
    again = small.columns(["a", "b", "c", "a"])
    assert [half.tolist() for half in wanted[:2]] == [half.tolist() for half in again[:2]]
    assert wanted[2] == ["a", "b", "c"]
