"""An id with two contents: no training set until somebody decides, and then one of the decision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.compute as pc
import pytest

from ofp_platform.log.governance_log import append_facts
from ofp_platform.log.port import RecordBatch
from ofp_platform.offline.datasets.dataset_reader import read_dataset
from ofp_platform.offline.datasets.publication import load_manifest
from ofp_platform.offline.runs.builder import build
from ofp_platform.storage.governance_facts import read_facts
from ofp_platform.storage.id_adjudications import read_decisions, standing_adjudications
from ofp_platform.vocabulary.envelope import Envelope
from ofp_platform.vocabulary.offline.adjudication import Adjudication
from ofp_platform.vocabulary.offline.build_refusal import BuildReason
from ofp_platform.vocabulary.offline.build_run import BuildRun, RunState
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.offline.governance_fact import IdAdjudicated
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.oracle.labelled_plane import LabelledPlane

EVENT = "payment-0000003"
Place = tuple[str, int]


@pytest.fixture
def world(dsn: str, tmp_path: Path) -> Iterator[LabelledPlane]:
    prepared = LabelledPlane.prepare(dsn, tmp_path)
    yield prepared
    prepared.plane.close()


def _record(world: LabelledPlane) -> tuple[RecordBatch, int]:
    batch = next(batch for batch in world.batches() if EVENT in batch.event_ids)
    return batch, batch.event_ids.index(EVENT)


def contradicted(world: LabelledPlane) -> tuple[Place, Place, int, int]:
    """Append the event with another amount: places and amounts of both."""
    batch, index = _record(world)
    payload = orjson.loads(batch.payloads[index])
    amount = payload["amount_minor"]
    pins = world.plane.profile.context_pins.wire()
    other = Envelope.model_validate(
        {
            "event_id": EVENT,
            "event_type": batch.event_types[index],
            "schema_version": batch.schema_versions[index],
            "ts_utc": format_time(int(batch.ts[index])),
            "payload": {**payload, "amount_minor": amount + 1},
            **pins,
        }
    )
    admitted_at = int(batch.admitted_at[index]) + 1_000_000
    (outcome,) = world.plane.log.append([other], lambda _: admitted_at).outcomes
    assert not isinstance(outcome, Exception)
    position: Any = outcome
    first = batch.partition_id, int(batch.offsets[index])
    return first, (position.partition_id, int(position.offset)), amount, amount + 1


def decide(world: LabelledPlane, place: Place, second: int = 0, event_class: str = "card_payment") -> None:
    adjudication = Adjudication(event_class=event_class, event_id=EVENT, partition_id=place[0], offset=place[1])
    decision = IdAdjudicated(
        stream_name=world.plane.log.stream_name,
        context_pins=world.plane.profile.context_pins,
        adjudication=adjudication,
        actor="ann",
        reason="the producer says so",
        decided_at_utc=f"2026-02-01T00:00:{second:02d}Z",
    )
    append_facts(world.plane.pool, [decision])


def published(world: LabelledPlane, run: BuildRun) -> DatasetManifest:
    assert run.state is RunState.DONE, run.refusal
    assert run.outcome is not None
    return load_manifest(world.objects, run.outcome["dataset_name"], run.outcome["dataset_identity"])


def refusal(run: BuildRun) -> str:
    assert run.state is RunState.FAILED
    assert run.refusal is not None
    assert run.refusal.reason is BuildReason.EVENT_ANOMALY
    return run.refusal.message


def test_a_poisoned_id_is_decided_on_once(world: LabelledPlane) -> None:
    context = world.build_context
    untouched = published(world, build(context, context.ledger.submit(world.intent("untouched")).run_key))
    assert untouched.adjudications is None
    first, second, amount, other_amount = contradicted(world)
    run_key = context.ledger.submit(world.intent("poisoned")).run_key
    words = refusal(build(context, run_key))
    for place in (first, second):
        assert "/".join(map(str, place)) in words
    assert f"{EVENT} of type card_payment" in words
    assert "ofp id adjudicate" in words
    manifests = []
    for number, (place, counted) in enumerate(((first, amount), (second, other_amount))):
        decide(world, place, number)
        context.ledger.reopen(run_key)
        manifest = published(world, build(context, context.ledger.submit(world.intent(f"decided_{number}")).run_key))
        manifests.append(manifest)
        assert manifest.adjudications is not None
        assert [(one.partition_id, one.offset) for one in manifest.adjudications] == [place]
        assert manifest.row_count == untouched.row_count
        table = read_dataset(world.objects, manifest)
        rows = table.filter(pc.field("event_id") == EVENT)
        assert rows["payload__amount_minor"].to_pylist() == [counted]
        assert manifest.gates.completeness.anomalies == 1
    one, two = (read_dataset(world.objects, manifest) for manifest in manifests)
    assert manifests[0].dataset_identity != manifests[1].dataset_identity
    # the values of all others are the same whoever counts: both contents are events
    others = pc.field("event_id") != EVENT
    assert one.filter(others).equals(two.filter(others))


def test_a_decision_that_names_no_content_of_the_id_decides_nothing(world: LabelledPlane) -> None:
    context = world.build_context
    first, _, _, _ = contradicted(world)
    elsewhere = "0000" if first[0] != "0000" else "0001", 0
    run_key = context.ledger.submit(world.intent()).run_key
    for number, (place, event_class) in enumerate(
        ((elsewhere, "card_payment"), (("none", 1), "card_payment"), (first, "another_class"))
    ):
        decide(world, place, number, event_class)
        refusal(build(context, run_key))
        context.ledger.reopen(run_key)
    decide(world, first, 50)
    assert build(context, run_key).state is RunState.DONE


def test_decisions_are_kept_and_the_last_one_stands(world: LabelledPlane) -> None:
    pool, stream, pins = world.plane.pool, world.plane.log.stream_name, world.plane.profile.context_pins
    assert standing_adjudications(pool, stream, pins) == ()
    for number in range(3):
        decide(world, ("0000", number), number)
    assert [decision.adjudication.offset for decision in read_decisions(pool, stream, pins)] == [0, 1, 2]
    assert [adjudication.offset for adjudication in standing_adjudications(pool, stream, pins)] == [2]
    assert standing_adjudications(pool, "another", pins) == ()
    assert standing_adjudications(pool, stream, pins.model_copy(update={"run_id": "another"})) == ()
    facts = read_facts(pool, "id_adjudicated", about=EVENT)
    assert len(facts) == 3
