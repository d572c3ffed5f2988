"""A sealed world reaches the log once, whatever cuts the streamer off, in the order and at the pace that were asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.ingress.class_map import class_map_of
from ofp_platform.ingress.door import Door
from ofp_platform.ingress.open_door import open_door
from ofp_platform.ingress.reconciliation import reconcile_ingress
from ofp_platform.log.port import EventLog, LogUnavailable
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.simulation.payments import PaymentSimulation
from ofp_platform.simulation.rings import RingSimulation
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.times import parse_time
from ofp_platform.vocabulary.world import OutputRole
from ofp_platform.world.makers import MadeWorld, payments_world, rings_world
from ofp_platform.world.streamer import BATCH_RECORDS, Pace, Send, Streamer, StreamTally
from ofp_platform.world.world_rows import WorldFault
from ofp_platform.world.world_store import OutputRows, World, open_world, seal_world, write_world
from ofp_platform_tests.world.test_world_store import MAKER, events, truth

AT_ONCE = Pace(0, lambda: 0.0, lambda _: None)
_runs = count()


@pytest.fixture(scope="module")
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn) as opened:
        yield opened


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore(str(tmp_path / "objects"))


def new_pins() -> ContextPins:
    number = next(_runs)
    return ContextPins(scenario_id="s", run_id=f"r-{number}", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)


def sealed(objects: ObjectStore, made: MadeWorld) -> World:
    write_world(objects, "w", made.maker, made.outputs)
    seal_world(objects, "w")
    return open_world(objects, "w")


def door_of(pool: Pool, objects: ObjectStore, pins: ContextPins, pack: str) -> Door:
    traffic = PostgresLog.create(pool, f"traffic-{pins.run_id}", 3, "payload.account_id")
    context = PostgresLog.create(pool, f"links-{pins.run_id}", 1, "payload.member")
    return open_door(pool, traffic, context, objects, pins, class_map_of(shipped_pack(pack), has_context=True))


def sending(door: Door) -> Send:
    def send(envelopes: Sequence[Mapping[str, Any]], admitted_at: Sequence[int] | None) -> Mapping[str, int]:
        return Counter(outcome.outcome.value for outcome in door.admit(envelopes, "world", admitted_at).outcomes)

    return send


def records(log: EventLog) -> list[tuple[str, int, int, dict[str, Any]]]:
    """Event id, time, admission and envelope of each record, partition by partition in the order of the log."""
    found = []
    for part in log.ends().partitions:
        at = log.retention_floor().by_partition()[part.partition_id]
        while at.offset != part.offset:
            batch = log.read(part.partition_id, at, 10_000)
            rows = zip(batch.event_ids, batch.ts.tolist(), batch.admitted_at.tolist(), strict=True)
            found += [(*row, batch.envelope(index).model_dump(mode="json", exclude_none=True)) for index, row in enumerate(rows)]
            at = batch.next
    return found


def balanced(pool: Pool, door: Door) -> int:
    with pool.connection() as connection:
        result = reconcile_ingress(connection, door.gate.pins, door.class_map, door.traffic, door.context)
    assert result.differences == []
    return result.sent_count


def test_a_world_of_payments_is_in_the_log_once_and_its_faults_are_set_aside(pool: Pool, objects: ObjectStore) -> None:
    pins = new_pins()
    world = sealed(objects, payments_world(PaymentSimulation(pins, payments=2_500)))
    door = door_of(pool, objects, pins, "card_payments")
    tally = Streamer(world, pins, pool, sending(door), AT_ONCE, as_arrived=False).run()
    rows = world.manifest.rows
    assert (tally.rows, tally.sent_rows, tally.resumed_rows, tally.outcomes.total()) == (rows, rows, 0, rows)
    in_log = records(door.traffic)
    assert len(in_log) == len({event_id for event_id, *_ in in_log}) == tally.outcomes["ADMIT"]
    assert tally.outcomes["DUPLICATE"] == 80  # 40 copies, 40 retries
    assert tally.outcomes["QUARANTINE"] == 4  # of another run; what a feature cannot read is for the projection to tell
    assert balanced(pool, door) == rows
    for part in door.traffic.partitions():  # each partition in the order of event time
        at = door.traffic.retention_floor().by_partition()[part.partition_id]
        ts = door.traffic.read(part.partition_id, at, 10_000).ts
        assert (ts[1:] >= ts[:-1]).all()


def test_records_as_they_arrived_are_admitted_then(pool: Pool, objects: ObjectStore) -> None:
    pins = new_pins()
    simulation = RingSimulation(pins, accounts=60, families=5, ring=4, days=14, amended=10)
    world = sealed(objects, rings_world(simulation))
    door = door_of(pool, objects, pins, "mule_rings")
    tally = Streamer(world, pins, pool, sending(door), AT_ONCE, as_arrived=True).run()
    assert tally.outcomes == Counter(ADMIT=world.manifest.rows)
    assert door.context is not None
    for log in (door.traffic, door.context):
        for part in log.partitions():
            at = log.retention_floor().by_partition()[part.partition_id]
            admitted_at = log.read(part.partition_id, at, 10_000).admitted_at
            assert (admitted_at[1:] >= admitted_at[:-1]).all()
    arrivals = {}
    for output in ("links", "transfers"):
        for part in world.events(output):
            arrived = part.column("arrived_at_utc").cast("int64").to_pylist()
            arrivals |= dict(zip(part.column("event_id").to_pylist(), arrived, strict=True))
    in_log = [*records(door.traffic), *records(door.context)]
    assert {event_id: admitted_at for event_id, _, admitted_at, _ in in_log} == arrivals
    assert sum("amends" in envelope for *_, envelope in in_log) == 10
    assert all(envelope["run_id"] == pins.run_id for *_, envelope in in_log)
    balanced(pool, door)


def test_a_streamer_that_is_cut_off_anywhere_goes_on(pool: Pool, objects: ObjectStore) -> None:
    pins = new_pins()
    world = sealed(objects, payments_world(PaymentSimulation(pins, payments=4_300)))
    door = door_of(pool, objects, pins, "card_payments")
    cuts = iter([("before", 1), ("after", 2), ("before", 0), ("after", 0), ("after", 1)])
    outcomes: Counter[str] = Counter()
    for when, passage in cuts:
        tally = StreamTally()
        with pytest.raises(LogUnavailable):
            Streamer(world, pins, pool, cut_off(sending(door), when, passage), AT_ONCE, as_arrived=False).run(tally)
        outcomes += tally.outcomes
    tally = Streamer(world, pins, pool, sending(door), AT_ONCE, as_arrived=False).run()
    assert tally.resumed_rows > 0
    assert tally.rows == world.manifest.rows
    in_log = [event_id for event_id, *_ in records(door.traffic)]
    assert len(in_log) == len(set(in_log))
    reference = new_pins()
    other = door_of(pool, objects, reference, "card_payments")
    again = Streamer(world, reference, pool, sending(other), AT_ONCE, as_arrived=False).run()
    assert sorted(in_log) == sorted(event_id for event_id, *_ in records(other.traffic))
    assert len(in_log) == again.outcomes["ADMIT"]
    balanced(pool, door)
    once_more = Streamer(world, pins, pool, sending(door), AT_ONCE, as_arrived=False).run()
    assert (once_more.sent_rows, once_more.resumed_rows) == (0, world.manifest.rows)


def cut_off(send: Send, when: str, passage: int) -> Send:
    """A sender that ends before or after the batch of that number was admitted: after it, nobody is told."""
    numbers = count()

    def sent(envelopes: Sequence[Mapping[str, Any]], admitted_at: Sequence[int] | None) -> Mapping[str, int]:
        if next(numbers) < passage:
            return send(envelopes, admitted_at)
        if when == "after":
            send(envelopes, admitted_at)
        raise LogUnavailable("cut off")

    return sent


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def collecting(batches: list[list[int]], clock: Clock, at: list[float]) -> Send:
    def send(envelopes: Sequence[Mapping[str, Any]], admitted_at: Sequence[int] | None) -> Mapping[str, int]:
        assert admitted_at is None
        batches.append([parse_time(envelope["ts_utc"]) for envelope in envelopes])
        at.append(clock.now)
        return {"ADMIT": len(envelopes)}

    return send


def two_outputs(objects: ObjectStore, first: Sequence[int], second: Sequence[int]) -> World:
    outputs = {
        "a": OutputRows(OutputRole.BUSINESS_TRAFFIC, [events(*first)]),
        "b": OutputRows(OutputRole.BEHAVIOURAL_CONTEXT, [events(*second)]),
        "labels": OutputRows(OutputRole.TRUTH, [truth()]),
    }
    return sealed(objects, MadeWorld(MAKER, outputs))


@pytest.mark.parametrize("speedup", [1.0, 60.0])
def test_events_come_when_their_time_has_passed(pool: Pool, objects: ObjectStore, speedup: float) -> None:
    second = 1_000_000
    world = two_outputs(objects, [0, 10 * second, 600 * second], [5 * second, 11 * second])
    clock, batches, at = Clock(), [], []  # type: ignore[var-annotated]
    pace = Pace(speedup, lambda: clock.now, clock.sleep)
    Streamer(world, new_pins(), pool, collecting(batches, clock, at), pace, as_arrived=False).run()
    assert sorted(time for batch in batches for time in batch) == [0, 5 * second, 10 * second, 11 * second, 600 * second]
    for batch, sent_at in zip(batches, at, strict=True):
        assert 0 <= sent_at - batch[-1] / second / speedup < 0.1
        assert (batch[-1] - batch[0]) / second / speedup <= 0.1


def test_outputs_go_on_together(pool: Pool, objects: ObjectStore) -> None:
    rows = 3 * BATCH_RECORDS
    world = two_outputs(objects, range(0, 2 * rows, 2), range(1, 2 * rows, 2))
    batches: list[list[int]] = []
    Streamer(world, new_pins(), pool, collecting(batches, Clock(), []), AT_ONCE, as_arrived=False).run()
    assert [batch[0] % 2 for batch in batches] == [0, 1] * 3
    assert all(len(batch) == BATCH_RECORDS for batch in batches)


def test_truth_is_never_sent(pool: Pool, objects: ObjectStore) -> None:
    only_truth = sealed(objects, MadeWorld(MAKER, {"labels": OutputRows(OutputRole.TRUTH, [truth()])}))
    with pytest.raises(WorldFault, match="holds nothing that is streamed"):
        Streamer(only_truth, new_pins(), pool, never, AT_ONCE, as_arrived=False).run()


def never(_envelopes: Sequence[Mapping[str, Any]], _admitted_at: Sequence[int] | None) -> Mapping[str, int]:
    raise AssertionError("nothing is sent")


def test_rows_that_say_no_arrival_cannot_be_declared(pool: Pool, objects: ObjectStore) -> None:
    world = two_outputs(objects, [1, 2], [3])
    with pytest.raises(WorldFault, match="row 0 of a does not say when it arrived: stream it by event time"):
        Streamer(world, new_pins(), pool, never, AT_ONCE, as_arrived=True).run()


def test_a_damaged_file_stops_the_streamer_before_it_sends_of_it(pool: Pool, objects: ObjectStore, tmp_path: Path) -> None:
    world = two_outputs(objects, [1, 2], [3])
    path = tmp_path / "objects" / "oracle" / "w" / "stream_view" / "a" / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(WorldFault, match="is not as it was sealed"):
        Streamer(world, new_pins(), pool, never, AT_ONCE, as_arrived=False).run()


def test_a_place_is_of_one_run_world_and_order(pool: Pool, objects: ObjectStore) -> None:
    world = two_outputs(objects, [1, 2], [3])
    pins, sent = new_pins(), [0]

    def send(envelopes: Sequence[Mapping[str, Any]], _admitted_at: Sequence[int] | None) -> Mapping[str, int]:
        sent[0] += len(envelopes)
        return {}

    def run(of_world: World, of_pins: ContextPins) -> int:
        sent[0] = 0
        Streamer(of_world, of_pins, pool, send, AT_ONCE, as_arrived=False).run()
        return sent[0]

    assert [run(world, pins), run(world, pins), run(world, new_pins())] == [3, 0, 3]
    other = replace(world, seal=world.seal.model_copy(update={"manifest_digest": "0" * 64}))
    assert run(other, pins) == 3
