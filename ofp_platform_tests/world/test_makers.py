"""A world holds all that its maker delivers, and nothing else, in the order of event time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from ofp_platform.simulation.disturbances import Disturbances
from ofp_platform.simulation.handbook import HandbookReplay
from ofp_platform.simulation.handbook_labels import handbook_labels
from ofp_platform.simulation.payments import PaymentSimulation, simulate_payments
from ofp_platform.simulation.rings import RingSimulation, simulate_ring
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.tables.import_rules import ImportRules
from ofp_platform.tables.table_file import TableFault
from ofp_platform.vocabulary.times import format_time, parse_time
from ofp_platform.vocabulary.world import OutputRole
from ofp_platform.world.makers import MadeWorld, handbook_world, payments_world, rings_world, table_world
from ofp_platform.world.world_rows import moments
from ofp_platform.world.world_store import World, open_world, seal_world, write_world
from ofp_platform_tests.simulation.test_handbook import PINS, table

RULES: dict[str, Any] = {
    "events": {
        "event_type": "swipe",
        "event_id": "id",
        "time": {"column": "at"},
        "fields": {"account_id": {"column": "account", "type": "key"}, "cents": {"column": "sum", "type": "amount", "digits": 2}},
        "admitted_after": "90s",
    },
    "labels": {
        "event_type": "swipe",
        "event_id": "id",
        "label_type": "fraud",
        "value": 1,
        "observed": {"column": "told"},
        "source": "desk",
    },
}


def sealed(made: MadeWorld, folder: Path) -> World:
    objects = ObjectStore(str(folder / "objects"))
    write_world(objects, "w", made.maker, made.outputs)
    seal_world(objects, "w")
    return open_world(objects, "w")


def records(world: World, output: str) -> list[dict[str, Any]]:
    """Envelopes without pins but those of another run, each with its arrival."""
    found = []
    for part in world.events(output):
        ts = moments(part)
        assert (ts[1:] >= ts[:-1]).all()
        for row in part.to_pylist():
            record = {name: row[name] for name in ("event_id", "event_type", "schema_version")}
            record |= {"ts": row["ts_utc"], "emitted": row["emitted_at_utc"], "arrived": row["arrived_at_utc"]}
            record |= {"payload": row["payload"], "amends": row["amends"], "other_run": row["other_run"]}
            found.append(record)
    return found


def test_a_world_of_payments_has_each_delivery_once_and_says_which_are_of_another_run(tmp_path: Path) -> None:
    simulation = PaymentSimulation(PINS, payments=3_000, disturbances=Disturbances(duplicates=5, retries=5, foreign_pins=3))
    stream = simulate_payments(simulation)
    rows = records(sealed(payments_world(simulation), tmp_path), "payments")
    delivered = Counter(zip(stream.deliveries.event_ids, stream.deliveries.payloads, stream.deliveries.ts.tolist(), strict=True))
    assert Counter((row["event_id"], row["payload"].encode(), _micros(row["ts"])) for row in rows) == delivered
    arrivals = sorted(stream.deliveries.admitted_at.tolist())
    assert sorted(_micros(row["arrived"]) for row in rows) == arrivals
    assert all(_micros(row["emitted"]) >= _micros(row["ts"]) for row in rows)
    foreign = [row for row in rows if row["other_run"] is not None]
    assert {row["event_id"].rsplit("-", 1)[0] for row in foreign} == {"payment-foreign-pins"}
    assert {orjson.loads(row["other_run"])["run_id"] for row in foreign} == {"foreign-run"}
    assert len(foreign) == 3


def test_the_same_simulation_is_the_same_world(tmp_path: Path) -> None:
    simulation = PaymentSimulation(PINS, payments=1_500)
    first, again = (sealed(payments_world(simulation), tmp_path / name) for name in ("a", "b"))
    assert first.manifest == again.manifest
    other = sealed(payments_world(PaymentSimulation(PINS, payments=1_500, seed=1)), tmp_path / "c")
    assert other.manifest.digest != first.manifest.digest
    assert other.manifest.maker.parameters["seed"] == 1
    assert first.manifest.maker.parameters["pins"] == PINS.wire()


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()


def test_a_world_of_rings_has_traffic_with_amendments_and_links_as_context(tmp_path: Path) -> None:
    simulation = RingSimulation(PINS, accounts=60, families=5, ring=4, days=14, amended=10)
    stream = simulate_ring(simulation)
    world = sealed(rings_world(simulation), tmp_path)
    assert {item.output: item.role for item in world.manifest.outputs} == {
        "links": OutputRole.BEHAVIOURAL_CONTEXT,
        "transfers": OutputRole.BUSINESS_TRAFFIC,
    }
    transfers, links = records(world, "transfers"), records(world, "links")
    assert Counter(row["event_id"] for row in transfers) == Counter(
        [*stream.deliveries.event_ids, *(item.envelope["event_id"] for item in stream.amendments)]
    )
    amended = {row["event_id"]: orjson.loads(row["amends"]) for row in transfers if row["amends"] is not None}
    assert amended == {item.envelope["event_id"]: item.envelope["amends"] for item in stream.amendments}
    assert [(row["event_id"], _micros(row["arrived"])) for row in sorted(links, key=lambda row: row["event_id"])] == sorted(
        (item.envelope["event_id"], item.admitted_at) for item in stream.links
    )


def test_a_world_of_the_handbook_has_what_happened_by_its_last_row_and_the_outcomes_of_that(tmp_path: Path) -> None:
    path = tmp_path / "handbook.parquet"
    pq.write_table(table(500), path)
    world = sealed(handbook_world(path, PINS), tmp_path)
    delivered = [name for batch in HandbookReplay(path, PINS).batches(until_last=True) for name in batch.event_ids]
    assert sorted(row["event_id"] for row in records(world, "transactions")) == sorted(delivered)
    assert Counter(world.truth()) == Counter(handbook_labels(path))
    assert [source.name for source in world.manifest.maker.sources] == ["handbook.parquet"]
    part = sealed(handbook_world(path, PINS, 100), tmp_path / "a")
    assert {row["event_type"] for row in records(part, "transactions")} == {"transaction", "fraud_report"}
    assert len([row for row in records(part, "transactions") if row["event_type"] == "transaction"]) == 100
    assert {item.event_id for item in part.truth()} == {f"transaction-{number:07d}" for number in range(0, 100, 5)}


def test_rows_of_ones_own_arrive_a_declared_while_after_their_time(tmp_path: Path) -> None:
    events, labels = tmp_path / "swipes.csv", tmp_path / "told.csv"
    events.write_text("id,at,account,sum\nb,2026-01-02T00:00:00Z,x,1.50\na,2026-01-01T00:00:00Z,y,2.00\n")
    labels.write_text("id,told\nb,2026-01-09T00:00:00Z\n")
    made = table_world(events, labels, ImportRules.model_validate(RULES), "swipe")
    assert made.faults == ()
    world = sealed(made, tmp_path)
    rows = records(world, "events")
    assert [(row["event_id"], row["payload"]) for row in rows] == [
        ("a", '{"account_id":"y","cents":200}'),
        ("b", '{"account_id":"x","cents":150}'),
    ]
    assert [_micros(row["arrived"]) - _micros(row["ts"]) for row in rows] == [90_000_000] * 2
    (label,) = world.truth()
    assert (label.event_class, label.event_id, label.value) == ("swipe", "b", 1)
    assert label.observed_time_utc == "2026-01-09T00:00:00Z"


def test_wrong_rows_are_told_and_counted_in_the_manifest(tmp_path: Path) -> None:
    events, labels = tmp_path / "swipes.csv", tmp_path / "told.csv"
    events.write_text("id,at,account,sum\nb,2026-01-02T00:00:00Z,x,1.50\na,yesterday,y,2.00\n")
    labels.write_text("id,told\nb,soon\n")
    made = table_world(events, labels, ImportRules.model_validate(RULES), "swipe")
    assert [(file, fault.place, fault.column) for file, fault in made.faults] == [
        ("swipes.csv", 3, "at"),
        ("told.csv", 2, "told"),
    ]
    assert made.maker.parameters["rows_left_out"] == 2
    assert [row["event_id"] for row in records(sealed(made, tmp_path), "events")] == ["b"]
    events.write_text("id,account,sum\nb,x,1.50\n")
    with pytest.raises(TableFault, match="no column 'at'"):
        table_world(events, None, ImportRules.model_validate(RULES), None)


def _micros(moment: Any) -> int:
    return parse_time(moment.isoformat().replace("+00:00", "Z"))


def test_the_helper_reads_moments_as_they_are() -> None:
    assert format_time(_micros(table(2).column("tx_datetime")[1].as_py())) == "2018-04-01T02:00:00Z"
