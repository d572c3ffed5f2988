"""Every object that a plane stores has a schema: a small plane from its log to models, and then everything that lies anywhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import date
from typing import Any

import orjson
import psycopg
import pyarrow.parquet as pq
import pytest
from jsonschema import Draft202012Validator
from psycopg import sql

from ofp_platform.api.contract_files import CONTRACTS, contract_schemas
from ofp_platform.learning.protocol import Protocol
from ofp_platform.learning.training import train
from ofp_platform.learning.training_rows import Columns
from ofp_platform.log.governance_log import append_facts
from ofp_platform.offline.datasets.publication import load_manifest
from ofp_platform.offline.parity.forensic_rebuild import RunPolicies
from ofp_platform.offline.requests.intent_file import parse_intent
from ofp_platform.offline.runs.builder import build
from ofp_platform.offline.runs.run_parity import RunToProve, correct_run, prove_run
from ofp_platform.offline.runs.run_reconciliation import governance_facts, reconcile
from ofp_platform.online.ranges.snapshot_sets import last_full_hour, materialise_hour
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.storage.snapshot_records import decompress
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.offline.build_run import BuildRun, RunState
from ofp_platform.vocabulary.offline.governance_fact import RunFailed
from ofp_platform.vocabulary.times import format_time, parse_time
from ofp_platform_tests.oracle.labelled_plane import DECIDED, FACTS, GROUPS, LabelledPlane

OBJECTS = {
    "archive/": "ofs_archive_receipt",
    "ofs/datasets/": "ofs_public_contracts",
    "ofs/snapshots/": "ofs_public_contracts",
    "ofs/reconciliation/": "ofs_reconciliation",
    "snapshot_sets/": "ofp_snapshot_set",
}
"""Folder of the object store to the schema of the JSON in it."""
LEARNED = {"model_lineage", "exact_model", "train_request", "eval_report"}
"""Kinds of the JSON in the folder `learning/`."""
COLUMNS = {
    "build_receipt.content": "ofs_build_receipt",
    "build_run.intent": "ofs_build_intent",
    "build_run.outcome": "ofs_build_receipt",
    "build_run.plan": "ofs_build_plan",
    "correction.record": "ofs_correction",
    "decision_record.content": "df_decision_record",
    "evidence.content": "run_check_evidence",
    "governance_fact.content": "governance_fact",
    "parity_record.record": "ofs_public_contracts",
    "projection.basis": "ofp_public_contracts#InputBasis",
    "projection.pins": "ofp_public_contracts#ContextPins",
    "registry_pack.content": "feature_pack",
    "run_facts.content": "run_facts",
    "snapshot_index.basis": "ofp_public_contracts#InputBasis",
}
"""Column to the schema of the JSON in it."""
PINNED_ELSEWHERE = {"ofp_health", "ofp_feature_groups", "profile", "ofs_label_assertion", "canonical_event_envelope"} | {
    "df_decision_receipt",
    "audit_leaf",
    "loop_reconciliation",
    "audit_tree_head",
    "audit_co_signature",
    "audit_proof",
    "case",
    "case_list",
    "case_receipt",
    "case_trigger_ask",
    "case_entry_ask",
    "case_entry_conflict",
    "admission_receipt",
    "admission_answer",
    "admission_batch",
    "class_map",
    "control_payload",
    "action_intent",
    "action_outcome",
    "action_record",
    "action_list",
    "action_settlement_ask",
    "governance_message",
    "action_policy",
    "posture_change",
    "posture_message",
    "posture_view",
    "posture_hold",
    "posture_release",
    "run_plan",
    "run_record",
    "run_ask",
    "run_ask_answer",
    "run_request",
    "run_status",
    "world_manifest",
    "world_seal",
    "df_decision_list",
    "label_assertions",
    "label_receipt",
    "ieg_entity_profile",
    "identity_link",
    "ofp_catalogue",
    "ofp_explanation",
    "ofp_apply_failures",
    "ofs_build_list",
    "ofs_build_progress",
    "ofs_parity_list",
    "ofs_parity_report",
    "ofs_dataset_list",
    "ofs_published_dataset",
    "ofp_pack_operations",
    "bundle_event",
    "bundle_history",
    "bundles_in_force",
    "challenger_report",
    "decision_bundle",
    "ofp_health_history",
    "pack_plan",
}
"""Objects that are shown, written by people, or stored in columns: other tests hold their schemas."""

RUN_FAILED = RunFailed(
    run_id="9f6c",
    job_name="replay_ranges",
    partition=None,
    partition_range=("0000|r0000001", "0000|r0000003"),
    backfill_id=None,
    assets=("projection_range",),
    error=None,
    reasons=("the log does not answer",),
)


def schema(name: str) -> Draft202012Validator:
    """The published schema; behind `#`, one definition in it."""
    file, _, definition = name.partition("#")
    content = json.loads((CONTRACTS / f"{file}_v0.schema.json").read_text(encoding="utf-8"))
    if definition:
        content = {"$ref": f"#/$defs/{definition}", "$defs": content["$defs"]}
    return Draft202012Validator(content)


def submitted(world: LabelledPlane, content: dict[str, Any]) -> BuildRun:
    build_context = world.build_context
    run = build(build_context, build_context.ledger.submit(parse_intent(content)).run_key)
    reconcile(build_context.ledger, build_context.objects, run)
    return run


def append_late(world: LabelledPlane) -> None:
    """One more payment of the account on which a decision was made, of an hour before it and admitted behind everything."""
    batch = next(batch for batch in world.batches() if DECIDED in batch.event_ids)
    payment = batch.envelope(batch.event_ids.index(DECIDED))
    wire = payment.model_dump(mode="json", exclude_none=True)
    late = {**wire, "event_id": "payment-late", "ts_utc": format_time(parse_time(payment.ts_utc) - 3_600_000_000)}
    late.pop("emitted_at_utc", None)
    assert not world.plane.log.append([late], lambda _: parse_time("2026-01-21T00:00:00Z")).refusals


@pytest.fixture(scope="module")
def world(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelledPlane]:
    """A plane on which everything has been done once."""
    made = LabelledPlane.prepare(module_dsn, tmp_path_factory.mktemp("stored"))
    plane, build_context = made.plane, made.build_context
    append_late(made)
    everything = made.everything.model_dump(mode="json")
    dataset = build(build_context, build_context.ledger.submit(made.intent()).run_key)
    assert dataset.state is RunState.DONE, dataset.refusal
    reconcile(build_context.ledger, made.objects, dataset)
    refused = build(build_context, build_context.ledger.submit(made.intent("refused", run_facts_ref="facts/none")).run_key)
    assert refused.state is RunState.FAILED
    path = reconcile(build_context.ledger, made.objects, refused)
    append_facts(plane.pool, governance_facts(refused, path))
    append_facts(plane.pool, governance_facts(dataset, path))
    append_facts(plane.pool, [RUN_FAILED])

    row = plane.ensure_live()
    while plane.projector(row).apply_available(max_records=100) is not None:
        pass
    row = plane.row(row.projection_id)
    hour = last_full_hour(row)
    assert hour is not None
    materialise_hour(plane, row, made.objects, hour)
    pins = plane.profile.context_pins
    question = {
        "context_pins": pins.wire(),
        "feature_keys": [{"key_type": "account", "key_id": "account-0000001"}],
        "feature_groups": GROUPS[:1],
        "as_of_time_utc": "2026-01-20T12:00:00Z",
    }
    SnapshotStore(plane.pool, made.objects).log([plane.reader(row).answer(canonical_bytes(question))])

    with plane.pool.connection() as connection:
        decided = connection.execute("SELECT decision_id FROM ofp.decision_record").fetchall()
    head = {
        "kind": "ofs_build_intent",
        "contract_version": "v0",
        "context_pins": pins.wire(),
        "run_facts_ref": FACTS,
        "stream_name": "card-payments",
        "policy": {"policy_id": "fraud_training", "revision": 1},
    }
    parity = {"intent": "parity_rebuild", "replay": {"select": "offsets", "basis": everything}}
    submitted(made, {**head, **parity, "decision_ids": [name for (name,) in decided]})
    forensic = {
        "intent": "forensic_rebuild",
        "basis": row.basis.model_dump(mode="json"),
        "feature_pack": {"pack_id": "card_payments", "revision": 1},
        "run_config_digest": row.run_config_digest,
    }
    submitted(made, {**head, **forensic, **{name: value for name, value in question.items() if name != "context_pins"}})
    run = RunToProve(pins, RunPolicies.of(plane.profile), plane.log.ends())
    prove_run(build_context, run)
    correct_run(build_context, run)

    assert dataset.outcome is not None
    manifest = load_manifest(made.objects, dataset.outcome["dataset_name"], dataset.outcome["dataset_identity"])
    columns = Columns(card="account_id", amount="payload__amount_minor", event_time="event_time_utc")
    protocol = Protocol(date(2026, 1, 5), training_days=3, delay_days=0, test_days=3)
    train(made.objects, manifest, columns, protocol, trees=5, jobs=1)
    yield made
    made.plane.close()


def records_of(data: bytes) -> list[dict[str, Any]]:
    """The snapshot records of a frame, one after another."""
    text, decoder, records, place = decompress(data).decode(), json.JSONDecoder(), [], 0
    while place < len(text):
        record, place = decoder.raw_decode(text, place)
        records.append(record)
    return records


def test_every_object_in_the_store_has_a_schema(world: LabelledPlane) -> None:
    seen: Counter[str] = Counter()
    for path in world.objects.list(""):
        data = world.objects.get(path)
        if path.endswith(".parquet"):
            assert path.startswith(("archive/", "ofs/datasets/")), path
            assert pq.ParquetFile(world.objects.folder / path).metadata.num_rows > 0  # type: ignore[operator]
            seen["parquet"] += 1
        elif path.endswith(".zst"):
            assert path.startswith("snapshots/"), path
            for record in records_of(data):
                schema("ofp_snapshot_record").validate(record)
                seen["ofp_snapshot_record"] += 1
        else:
            kind = orjson.loads(data)["kind"] if path.startswith("learning/") else None
            assert kind is None or kind in LEARNED, f"{path} is a {kind}"
            names = [kind] if kind else [name for folder, name in OBJECTS.items() if path.startswith(folder)]
            assert names, f"{path} has no schema"
            schema(names[0]).validate(orjson.loads(data))
            seen[names[0]] += 1
    assert set(seen) == {"parquet", "ofp_snapshot_record", *OBJECTS.values(), *LEARNED}
    assert any(path.startswith("snapshots/packs/") for path in world.objects.list("snapshots"))


def stored_texts(dsn: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Column, text and whole row of every text in the schema that is an object or a list in JSON."""
    with psycopg.connect(dsn, row_factory=psycopg.rows.dict_row) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = 'ofp' AND data_type IN ('text', 'json', 'jsonb') ORDER BY 1, 2"
        ).fetchall()
        for column in columns:
            table, name = column["table_name"], column["column_name"]
            query = sql.SQL("SELECT * FROM ofp.{} WHERE left({}::text, 1) IN ('{{', '[')")
            for row in connection.execute(query.format(sql.Identifier(table), sql.Identifier(name))):
                yield f"{table}.{name}", row[name], row


def test_every_json_column_of_the_database_has_a_schema(world: LabelledPlane, module_dsn: str) -> None:
    seen: Counter[str] = Counter()
    for column, text, row in stored_texts(module_dsn):
        assert column in COLUMNS, f"{column} has no schema: {text[:200]}"
        content = orjson.loads(text)
        if column.startswith("build_"):
            content = _receipt(column, content, row)
        schema(COLUMNS[column]).validate(content)
        seen[column] += 1
    assert set(seen) == set(COLUMNS), "a column of which nothing was stored"
    with psycopg.connect(module_dsn) as connection:
        stages = {stage for (stage,) in connection.execute("SELECT DISTINCT stage FROM ofp.build_receipt")}
    assert stages == set(schema("ofs_build_receipt").schema["properties"]["stage"]["enum"])


def _receipt(column: str, content: Any, row: dict[str, Any]) -> Any:
    """The receipt of which a column of the ledger holds the content; an outcome is that of the last stage of its kind."""
    stages = {"dataset_build": "manifest", "parity_rebuild": "parity", "forensic_rebuild": "snapshot"}
    match column:
        case "build_receipt.content":
            receipt = {name: row[name] for name in ("stage", "attempt", "publish_attempt", "digest")}
        case "build_run.outcome":
            receipt = {"stage": stages[row["intent_kind"]], "attempt": 1, "publish_attempt": 0, "digest": "0" * 64}
        case _:
            return content
    return {**receipt, "content": content, "recorded_at_utc": "2026-01-01T00:00:00Z"}


def test_every_event_in_the_log_is_an_envelope(world: LabelledPlane) -> None:
    check = schema("canonical_event_envelope")
    for batch in world.batches():
        for index in range(len(batch)):
            check.validate(batch.envelope(index).model_dump(mode="json", exclude_none=True))


def test_no_schema_is_of_nothing() -> None:
    published = {name.removesuffix("_v0.schema.json") for name in contract_schemas()}
    stored = {name.partition("#")[0] for name in (*OBJECTS.values(), *COLUMNS.values())}
    assert published == stored | LEARNED | PINNED_ELSEWHERE | {"ofp_snapshot_record", "ofs_build_run", "ofs_run_parity"}
