"""Decision records in their table: appended once, equal content is known, other content is an error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
from pydantic import ValidationError

from ofp_platform.decisions.recorder import DecisionRecorder
from ofp_platform.storage import decision_records
from ofp_platform.storage.decision_records import DecisionConflict, append_decisions, decision_ids_in, read_decisions
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, decision_id
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis

_runs = count()


def new_run() -> ContextPins:
    return ContextPins(scenario_id="d", run_id=f"run-{next(_runs)}", manifest_fingerprint="1" * 64, parameter_hash="2" * 64)


def record(pins: ContextPins, event_id: str, **changes: Any) -> DecisionRecord:
    content = {
        "decision_id": decision_id(pins, "card_payment", event_id),
        "context_pins": pins.wire(),
        "event_type": "card_payment",
        "event_id": event_id,
        "event_position": {"stream_name": "s", "partition_id": "0000", "offset": 4},
        "as_of_time_utc": "2026-01-01T00:00:00Z",
        "feature_snapshot_hash": "3" * 64,
        "feature_keys": [{"key_type": "card", "key_id": "card-1"}],
        "feature_groups": [{"group_name": "card_activity", "group_version": "v1"}],
        "feature_definition_set": {"pack_id": "card_payments", "revision": 1, "digest": "4" * 64},
        "run_config_digest": "5" * 64,
        "input_basis": {
            "stream_name": "s",
            "partitions": [{"partition_id": "0000", "offset_kind": "exclusive_next", "offset": 5}],
        },
        "rule": {"rule_name": "r", "rule_version": "v1", "digest": "6" * 64},
        "score": 10,
        "outcome": "approve",
        "decided_at_utc": "2026-01-01T00:00:01Z",
        **changes,
    }
    return DecisionRecord.model_validate(content)


@pytest.fixture(scope="module")
def recorder(module_dsn: str) -> Iterator[DecisionRecorder]:
    with open_pool(module_dsn) as pool:
        yield DecisionRecorder(pool)


def all_of(pool: Pool, pins: ContextPins) -> dict[str, DecisionRecord]:
    basis = {
        "stream_name": "s",
        "partitions": [{"partition_id": "0000", "offset_kind": "exclusive_next", "start": 0, "next": 100}],
    }
    with pool.connection() as connection:
        return read_decisions(connection, decision_ids_in(connection, pins, ReplayBasis.model_validate(basis)))


def test_equal_content_is_known_and_comes_back_as_it_was(recorder: DecisionRecorder) -> None:
    pins = new_run()
    one, other = record(pins, "e-1", request_context={"amount_minor": 5}), record(pins, "e-2", score="0.125")
    assert recorder.append([one, one, other]) == (2, 1)
    assert recorder.append([other, one]) == (0, 2)
    assert all_of(recorder.pool, pins) == {one.decision_id: one, other.decision_id: other}
    assert recorder.undecided([one.decision_id, "0" * 64]) == {"0" * 64}


def test_other_content_is_an_error_and_nothing_of_it_is_appended(recorder: DecisionRecorder) -> None:
    pins = new_run()
    first = record(pins, "e-1")
    recorder.append([first])
    second = record(pins, "e-1", score=11)
    with pytest.raises(DecisionConflict, match=first.decision_id):
        recorder.append([record(pins, "e-0"), second])
    assert all_of(recorder.pool, pins) == {first.decision_id: first}
    third = record(pins, "e-2")
    assert recorder.append_first([second, third, record(pins, "e-2", score=12)]) == 1
    assert all_of(recorder.pool, pins) == {first.decision_id: first, third.decision_id: third}


def rows_met(node: dict[str, Any]) -> float:
    """Rows that the nodes of an executed plan gave or compared and left out, the most of any one node."""
    removed = sum(node.get(f"Rows Removed by {kind}", 0) for kind in ("Filter", "Join Filter", "Index Recheck"))
    own = (node["Actual Rows"] + removed) * node["Actual Loops"]
    return max([own, *(rows_met(child) for child in node.get("Plans", ()))])


def test_many_decisions_are_held_against_each_other_once(recorder: DecisionRecorder) -> None:
    """As a join for the first difference, each of them was looked for among all: 100,000 took minutes."""
    pins, many = new_run(), 2_000
    records = [record(pins, f"many-{number}") for number in range(many)]
    with recorder.pool.connection() as connection, connection.transaction():
        assert append_decisions(connection, records) == (many, 0)
        stored = connection.execute("SELECT count(*) FROM ofp.decision_record").fetchone()
        offered = decision_records._offered(records[:1_000])
        ((plan,),) = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {decision_records._OTHER}", offered).fetchall()
    assert stored is not None
    assert rows_met(plan[0]["Plan"]) <= 2 * (many + stored[0])


def test_two_contents_in_one_append(recorder: DecisionRecorder) -> None:
    pins = new_run()
    with pytest.raises(DecisionConflict):
        recorder.append([record(pins, "e-1"), record(pins, "e-1", score=11)])
    assert all_of(recorder.pool, pins) == {}


def test_recorders_at_once_the_first_decision_stands(recorder: DecisionRecorder) -> None:
    pins = new_run()
    together = threading.Barrier(3)

    def append(score: int) -> int:
        records = [record(pins, f"e-{number}", score=score) for number in range(300)]
        together.wait(timeout=30)
        return recorder.append_first(records if score else records[::-1])

    with ThreadPoolExecutor(3) as threads:
        assert sum(threads.map(append, [0, 1, 2])) == 300
    assert len(all_of(recorder.pool, pins)) == 300


def test_sequence_numbers_of_any_length_have_a_place(recorder: DecisionRecorder) -> None:
    pins = new_run()
    long = 10**55 + 7
    basis = {
        "stream_name": "s",
        "partitions": [{"partition_id": "shard-0", "offset_kind": "after_sequence_number", "offset": str(long)}],
    }
    position = {"stream_name": "s", "partition_id": "shard-0", "offset": str(long)}
    recorder.append([record(pins, "e-1", event_position=position, input_basis=basis)])

    def found(start: str, end: str) -> int:
        span = {"partition_id": "shard-0", "offset_kind": "after_sequence_number", "start": start, "next": end}
        wanted = ReplayBasis.model_validate({"stream_name": "s", "partitions": [span]})
        with recorder.pool.connection() as connection:
            return len(decision_ids_in(connection, pins, wanted))

    assert (found("", str(long)), found(str(long - 1), str(long))) == (1, 1)
    assert (found("", str(long - 1)), found(str(long), str(long + 1))) == (0, 0)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"decision_id": "0" * 64}, "not the one of this run and event"),
        ({"event_position": {"stream_name": "t", "partition_id": "0000", "offset": 4}}, "another stream"),
        ({"score": 1.5}, "score"),
        ({"score": "1e5"}, "score"),
        ({"outcome": "perhaps"}, "outcome"),
        ({"score": True}, "score"),
    ],
)
def test_records_that_say_something_impossible(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        record(new_run(), "e-1", **changes)


def test_the_id_is_of_run_and_event() -> None:
    one, other = new_run(), new_run()
    ids = {decision_id(pins, kind, event) for pins in (one, other) for kind in ("a", "b") for event in ("a", "b")}
    assert len(ids) == 8
