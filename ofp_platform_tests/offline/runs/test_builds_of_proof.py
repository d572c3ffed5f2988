"""Builds that prove: parity as a gate of datasets and by itself, and the forensic rebuild of one snapshot."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from ofp_platform.offline.datasets import feature_rows
from ofp_platform.offline.datasets.dataset_reader import read_dataset
from ofp_platform.offline.requests.intent_file import parse_intent
from ofp_platform.offline.runs import build_stages
from ofp_platform.offline.runs.builder import build
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.storage.decision_records import append_decisions
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, decision_id
from ofp_platform.vocabulary.offline.build_refusal import BuildReason
from ofp_platform.vocabulary.offline.build_run import BuildRun, RunState
from ofp_platform_tests.oracle.labelled_plane import FACTS, LabelledPlane
from ofp_platform_tests.oracle.published import published_manifests

EVENT = "payment-0000390"
GROUPS = [{"group_name": "account_activity", "group_version": "v1"}]


@pytest.fixture
def world(dsn: str, tmp_path: Path) -> Iterator[LabelledPlane]:
    made = LabelledPlane.prepare(dsn, tmp_path, decided=False)
    yield made
    made.plane.close()


def served(world: LabelledPlane) -> tuple[dict[str, Any], ProjectionRow]:
    """What the online plane serves for the account of an event, at the end of the log, as stored in a snapshot record."""
    plane = world.plane
    row = plane.ensure_live()
    while plane.projector(row).apply_available(max_records=100) is not None:
        pass
    row = plane.row(row.projection_id)
    account = account_of(world)
    request = {
        "kind": "get_features_request",
        "contract_version": "ofp_public_contracts_v0",
        "context_pins": plane.profile.context_pins.wire(),
        "feature_keys": [{"key_type": "account", "key_id": account}],
        "feature_groups": GROUPS,
        "as_of_time_utc": "2026-01-20T12:00:00Z",
    }
    answer = plane.reader(row).answer(canonical_bytes(request))
    return {"hash": answer.hash, **orjson.loads(answer.hashed)}, row


def account_of(world: LabelledPlane) -> str:
    for batch in world.batches():
        if EVENT in batch.event_ids:
            return str(orjson.loads(batch.payloads[batch.event_ids.index(EVENT)])["account_id"])
    raise AssertionError("the event is in the log")


def decide(world: LabelledPlane, snapshot_hash: str | None = None, registry_digest: str | None = None) -> str:
    """Record a decision on EVENT that was served that hash under that pack (None: the true ones)."""
    answer, row = served(world)
    pins = world.plane.profile.context_pins
    position = next(
        {
            "stream_name": "card-payments",
            "partition_id": batch.partition_id,
            "offset": batch.offsets[batch.event_ids.index(EVENT)],
        }
        for batch in world.batches()
        if EVENT in batch.event_ids
    )
    record = DecisionRecord.model_validate(
        {
            "decision_id": decision_id(pins, "card_payment", EVENT),
            "context_pins": pins,
            "event_type": "card_payment",
            "event_id": EVENT,
            "event_position": position,
            "as_of_time_utc": answer["as_of_time_utc"],
            "feature_snapshot_hash": snapshot_hash or answer["hash"],
            "feature_keys": answer["feature_keys"],
            "feature_groups": answer["feature_groups"],
            "feature_definition_set": {
                "pack_id": "card_payments",
                "revision": 1,
                "digest": registry_digest or answer["registry_digest"],
            },
            "run_config_digest": row.run_config_digest,
            "input_basis": row.basis,
            "rule": {"rule_name": "rule", "rule_version": "v1", "digest": "0" * 64},
            "score": 1,
            "outcome": "approve",
            "decided_at_utc": "2026-01-21T00:00:00Z",
        }
    )
    with world.plane.pool.connection() as connection:
        append_decisions(connection, [record])
    return record.decision_id


def run_of(world: LabelledPlane, **content: Any) -> BuildRun:
    head = {
        "kind": "ofs_build_intent",
        "contract_version": "v0",
        "context_pins": world.plane.profile.context_pins.wire(),
        "run_facts_ref": FACTS,
        "stream_name": "card-payments",
        "policy": {"policy_id": "fraud_training", "revision": 1},
    }
    build_context = world.build_context
    return build(build_context, build_context.ledger.submit(parse_intent({**head, **content})).run_key)


def whole_log(world: LabelledPlane) -> dict[str, Any]:
    return {"select": "offsets", "basis": world.everything.model_dump(mode="json")}


def test_a_training_set_says_how_many_decisions_were_rebuilt(world: LabelledPlane) -> None:
    decide(world)
    build_context = world.build_context
    run = build(build_context, build_context.ledger.submit(world.intent()).run_key)
    assert run.state is RunState.DONE, run.refusal
    (manifest,) = published_manifests(world.objects)
    parity = manifest.gates.parity
    assert parity is not None
    assert (parity.anchors, parity.match) == (1, 1)


def test_one_mismatch_and_there_is_no_training_set(world: LabelledPlane) -> None:
    decide(world, "7" * 64)
    build_context = world.build_context
    run = build(build_context, build_context.ledger.submit(world.intent()).run_key)
    assert run.refusal is not None
    assert run.refusal.reason is BuildReason.PARITY_MISMATCH
    assert list(published_manifests(world.objects)) == []
    lenient = world.intent(purpose="analysis", policy={"policy_id": "analysis", "revision": 1}, name="looked_at")
    assert build(build_context, build_context.ledger.submit(lenient).run_key).state is RunState.DONE


def test_without_a_decision_there_is_no_training_set(world: LabelledPlane) -> None:
    build_context = world.build_context

    def built(**changes: Any) -> BuildRun:
        return build(build_context, build_context.ledger.submit(world.intent(**changes)).run_key)

    nothing_recorded = built()
    decide(world)
    nothing_compared = built(name="not_compared", parity_anchors="none")
    for run in (nothing_recorded, nothing_compared):
        assert run.refusal is not None
        assert (run.refusal.reason, run.refusal.field) == (BuildReason.PARITY_BELOW_POLICY, "parity_anchors")
    assert list(published_manifests(world.objects)) == []
    analysis = {"purpose": "analysis", "policy": {"policy_id": "analysis", "revision": 1}, "parity_anchors": "none"}
    assert built(name="looked_at", **analysis).state is RunState.DONE


def test_a_decision_that_cannot_be_compared_is_no_match(world: LabelledPlane) -> None:
    decided = decide(world, registry_digest="0" * 64)  # a pack that nobody published here
    run = run_of(world, intent="parity_rebuild", replay=whole_log(world), decision_ids=[decided])
    assert run.outcome == {"anchors": 1, "match": 0, "mismatch": 0, "uncheckable": 1}
    build_context = world.build_context
    refused = build(build_context, build_context.ledger.submit(world.intent()).run_key)
    assert refused.refusal is not None
    assert refused.refusal.reason is BuildReason.PARITY_BELOW_POLICY
    assert "1 of 1 recorded decisions could not be compared" in refused.refusal.message
    assert list(published_manifests(world.objects)) == []


DECIDED = {
    "purpose": "analysis", "as_of_basis": "decision", "label": None, "feature_groups": GROUPS,
    "policy": {"policy_id": "analysis", "revision": 1},
}  # fmt: skip


def built(world: LabelledPlane, name: str, **changes: Any) -> BuildRun:
    build_context = world.build_context
    return build(build_context, build_context.ledger.submit(world.intent(name, **{**DECIDED, **changes})).run_key)


def test_rows_are_of_the_decisions_of_the_replay_whether_or_not_they_are_compared(world: LabelledPlane) -> None:
    decided = world.decide()
    run = built(world, "decided", parity_anchors="none")
    assert run.state is RunState.DONE, run.refusal
    (manifest,) = published_manifests(world.objects)
    assert read_dataset(world.objects, manifest)["decision_id"].to_pylist() == [decided]
    served = manifest.gates.served
    assert served is not None
    assert (served.rows, served.compared, served.values > 5) == (1, 1, True)


def test_a_row_that_was_not_served_is_not_published(world: LabelledPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    world.decide()
    original = feature_rows._columns

    def one_more(*arguments: Any) -> Any:
        ordinals, columns = original(*arguments)
        return ordinals, [replace(columns[0], low=columns[0].low + 1), *columns[1:]]

    monkeypatch.setattr(feature_rows, "_columns", one_more)
    monkeypatch.setattr(build_stages, "check_features", lambda *arguments: 1)
    run = built(world, "spoilt")
    assert run.refusal is not None
    assert run.refusal.reason is BuildReason.SERVED_ROW_MISMATCH
    assert list(published_manifests(world.objects)) == []


def test_a_vector_that_is_not_stored_is_not_taken_as_equal(world: LabelledPlane) -> None:
    world.decide()
    with world.plane.pool.connection() as connection:
        connection.execute("DELETE FROM ofp.snapshot_index")
    for path in world.objects.list("snapshots"):
        (world.folder / "objects" / path).unlink()
    training = {"policy": {"policy_id": "fraud_training", "revision": 1}}
    run = built(world, "unproven", **training)
    assert run.refusal is not None
    assert run.refusal.reason is BuildReason.PARITY_BELOW_POLICY
    assert "1 of 1 rows are not stored" in run.refusal.message
    assert built(world, "looked_at").state is RunState.DONE


def test_parity_by_itself(world: LabelledPlane) -> None:
    decided = decide(world)
    run = run_of(world, intent="parity_rebuild", replay=whole_log(world), decision_ids=[decided])
    assert run.state is RunState.DONE, run.refusal
    assert run.outcome == {"anchors": 1, "match": 1, "mismatch": 0, "uncheckable": 0}


@pytest.mark.parametrize(("expected", "outcome"), [(True, "MATCH"), (False, "MISMATCH"), (None, "REBUILT")])
def test_one_snapshot_rebuilt(world: LabelledPlane, expected: bool | None, outcome: str) -> None:
    answer, row = served(world)
    hashes = {True: {"expected_hash": answer["hash"]}, False: {"expected_hash": "7" * 64}, None: {}}
    run = run_of(
        world,
        intent="forensic_rebuild",
        basis=row.basis.model_dump(mode="json"),
        feature_pack={"pack_id": "card_payments", "revision": 1},
        run_config_digest=row.run_config_digest,
        feature_keys=answer["feature_keys"],
        feature_groups=answer["feature_groups"],
        as_of_time_utc=answer["as_of_time_utc"],
        **hashes[expected],
    )
    assert run.state is RunState.DONE, run.refusal
    assert run.outcome is not None
    assert (run.outcome["outcome"], run.outcome["feature_snapshot_hash"]) == (outcome, answer["hash"])
    stored = orjson.loads(world.objects.get(run.outcome["object_path"]))
    assert stored["hashed"] == {name: value for name, value in answer.items() if name != "hash"}
    snapshots = SnapshotStore(world.plane.pool, world.objects)
    assert orjson.loads(snapshots.load_rebuilt(answer["hash"])) == stored
    with pytest.raises(ContractError, match="no forensic rebuild gave"):
        snapshots.load_rebuilt("7" * 64)
    folder = world.objects.folder
    assert folder is not None
    path = folder / str(run.outcome["object_path"])
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"values":[', b'"values":[null,'))
    with pytest.raises(ContractError, match="are damaged"):
        snapshots.load_rebuilt(answer["hash"])
