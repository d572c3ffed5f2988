"""The way into a log, and that nothing goes around it."""

from __future__ import annotations

import ast
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ofp_platform
from ofp_platform.cli.files.run_door import entrance_of
from ofp_platform.cli.up.traffic import PRODUCER, trickle
from ofp_platform.ingress.receipts import read_batches
from ofp_platform.online.plane import Plane
from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome
from ofp_platform.vocabulary.columns import NOT_EMITTED, EventColumns
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import make_basis
from ofp_platform.vocabulary.profile import Profile

PACKAGE = Path(ofp_platform.__file__).parent
PINS = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
AT = 1_767_225_600_000_000


def payment(event_id: str, **more: Any) -> dict[str, Any]:
    payload = {"account_id": "acct-1", "card_id": "card-1", "merchant_id": "mer-1", "amount": "5.00", "currency": "EUR"}
    head = {"event_id": event_id, "event_type": "card_payment", "schema_version": "v1", "ts_utc": "2026-01-01T00:00:00Z"}
    return {**head, **PINS.wire(), "payload": payload, **more}


@pytest.fixture
def plane(dsn: str, tmp_path: Path) -> Any:
    profile = Profile(
        profile_name="p",
        stream_name="payments",
        partition_key="payload.account_id",
        context_pins=PINS,
        pack="card_payments",
        object_store_url=f"file://{tmp_path}/objects",
    )
    with Plane.open(profile, dsn) as opened:
        yield opened


def columns(*event_ids: str) -> EventColumns:
    count = len(event_ids)
    return EventColumns(
        list(event_ids),
        ["card_payment"] * count,
        ["v1"] * count,
        np.full(count, AT, np.int64),
        np.full(count, NOT_EMITTED, np.int64),
        [PINS],
        np.zeros(count, np.int32),
        [payment("any")["payload"]] * count,
    )


def test_through_a_door_each_record_has_a_receipt(plane: Plane) -> None:
    entrance = entrance_of(plane)
    fates = entrance.send([payment("e-1"), payment("e-1"), payment("e-2", event_type="unknown")], "me")
    assert [fate.outcome.value for fate in fates] == ["ADMIT", "DUPLICATE", "QUARANTINE"]
    assert fates[0].position == fates[1].position is not None
    assert (fates[2].position, fates[2].reason) == (None, "UNKNOWN_EVENT_TYPE")
    by_columns = entrance.send_columns(columns("e-1", "e-3"), np.array([AT, AT + 1], np.int64), "me")
    assert [fate.outcome.value for fate in by_columns] == ["DUPLICATE", "ADMIT"]
    assert by_columns[1].position is not None
    batch = plane.log.read(by_columns[1].position.partition_id, None, 10)
    assert batch.admitted_at.tolist()[-1] == AT + 1
    with plane.pool.connection() as connection:
        assert [(row.producer, row.records) for row in read_batches(connection, PINS)] == [("me", 2), ("me", 3)]


def test_a_batch_of_any_size_is_cut_as_the_door_takes_it(plane: Plane) -> None:
    fates = entrance_of(plane).send([payment(f"e-{number}") for number in range(10_001)], "me", at_event_time=True)
    assert {fate.outcome for fate in fates} == {AdmissionOutcome.ADMIT}
    with plane.pool.connection() as connection:
        assert [row.records for row in read_batches(connection, PINS)] == [1, 10_000]


def test_simulated_traffic_comes_through_the_door(plane: Plane) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=trickle, args=(plane, None, 400.0, stop))
    thread.start()
    start = make_basis(plane.log.stream_name, {})
    while thread.is_alive() and sum(plane.log.ordinal_lag(start).values()) < 100:
        stop.wait(0.05)
    stop.set()
    thread.join()
    in_log = sum(plane.log.ordinal_lag(start).values())
    with plane.pool.connection() as connection:
        batches = read_batches(connection, PINS, limit=1_000)
    assert in_log == sum(batch.admitted for batch in batches) == sum(batch.records for batch in batches) >= 100
    assert {batch.producer for batch in batches} == {PRODUCER}


def test_nothing_appends_to_a_log_but_ingress() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            receiver = ast.unparse(node.func.value)
            to_a_log = node.func.attr in ("append", "publish") and receiver.rpartition(".")[2].rstrip("()").endswith(
                ("log", "traffic", "context")
            )
            if to_a_log or node.func.attr in ("append_columns", "append_within"):
                found.add(name)
    assert {name for name in found if not name.startswith("log/")} == {
        "ingress/committing_door.py",
        "ingress/own_streams.py",
        "ingress/publishing_door.py",
    }
