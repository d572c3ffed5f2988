"""docs/recompute.py gives the digests of real objects, with the standard library alone; its page shows vectors that hold."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from ofp_platform.decisions.decision_point import CARD_PAYMENTS, HANDBOOK
from ofp_platform.decisions.event_reader import EventReader
from ofp_platform.offline.datasets.dataset_reader import read_dataset
from ofp_platform.offline.datasets.publication import load_manifest
from ofp_platform.offline.labels.label_sources import FRAUD_REPORTS, reported_labels
from ofp_platform.offline.runs.builder import build
from ofp_platform.registry.calendar_windows import ZONE_DATA_VERSION
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.models import event_class
from ofp_platform.registry.pack import SHIPPED_PACKS, load_pack, pack_digest, shipped_pack, shipped_pack_text
from ofp_platform.registry.routing import Router
from ofp_platform.vocabulary.canonical import jcs_bytes
from ofp_platform.vocabulary.loop.decision_record import decision_id
from ofp_platform.vocabulary.offline.build_plan import IDENTITY_FIELDS
from ofp_platform.vocabulary.offline.build_run import BuildRun
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.docs.fenced import blocks
from ofp_platform_tests.oracle.labelled_plane import LabelledPlane
from ofp_platform_tests.oracle.resolved_plane import resolving
from ofp_platform_tests.oracle.strategies import PACK, PLAIN_PACK
from ofp_platform_tests.vocabulary.test_observed_keys import OBSERVING

ROOT = Path(__file__).resolve().parents[2]
SCRIPT, PAGE = ROOT / "docs" / "recompute.py", ROOT / "docs" / "recomputing.md"


def script(kind: str, content: Any) -> str:
    """What the script prints, in an interpreter that finds no package but the standard library."""
    text = content if isinstance(content, str) else json.dumps(content)
    command = [sys.executable, "-I", "-S", str(SCRIPT), kind, "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def recompute() -> ModuleType:
    """The script as a module: a process for each question would take long."""
    spec = importlib.util.spec_from_file_location("recompute", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def world(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelledPlane]:
    made = LabelledPlane.prepare(module_dsn, tmp_path_factory.mktemp("plane"))
    projector = made.plane.projector(made.plane.ensure_live())
    while projector.apply_available(max_records=1_000) is not None:
        pass
    yield made
    made.plane.close()


@pytest.fixture(scope="module")
def built(world: LabelledPlane) -> tuple[BuildRun, DatasetManifest]:
    context = world.build_context
    run = build(context, context.ledger.submit(world.intent()).run_key)
    assert run.outcome is not None, run.refusal
    return run, load_manifest(world.objects, run.outcome["dataset_name"], run.outcome["dataset_identity"])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(value=JSON)
def test_canonical_bytes_are_those_of_rfc_8785(recompute: ModuleType, value: Any) -> None:
    assert recompute.canonical(json.loads(json.dumps(value))) == jcs_bytes(value)


def test_every_vector_of_the_page_holds() -> None:
    found = [block.text.split("\n", 1) for block in blocks(PAGE) if block.language == "json"]
    kinds = []
    for head, content in found:
        kind, expected = head.removeprefix("// ").split(" = ")
        assert script(kind, content) == expected, kind
        kinds.append(kind)
    listed = subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT), "--list"], capture_output=True, text=True, check=True
    ).stdout
    assert sorted(set(kinds)) == sorted(line.split()[0] for line in listed.splitlines())


def test_events(recompute: ModuleType, world: LabelledPlane) -> None:
    compared = 0
    pack = shipped_pack("card_payments")
    router = Router(compile_pack(pack))
    for batch in world.batches():
        ids = router.route(
            batch.event_types,
            batch.event_ids,
            batch.schema_versions,
            batch.ts,
            batch.payload_hashes,
            batch.payloads,
            batch.amends,
        )
        for index, event_type in enumerate(batch.event_types):
            wire = {
                "event_id": batch.event_ids[index],
                "event_type": event_type,
                "schema_version": batch.schema_versions[index],
                "ts_utc": format_time(int(batch.ts[index])),
                "payload": json.loads(batch.payloads[index]),
                **batch.pins[batch.pins_index[index]].wire(),
            }
            payload_hash = recompute.payload_hash(wire)
            assert payload_hash == batch.payload_hashes[index].hex()
            named = {"event_class": event_class(pack.events, wire["event_type"]), "event_id": wire["event_id"]}
            high, low = (int(half) for half in ids.tie_digest[index])
            assert recompute.tie({**named, "payload_hash": payload_hash}) == f"{high:016x}{low:016x}"
            compared += 1
    assert compared > 400


def test_definitions(recompute: ModuleType, world: LabelledPlane) -> None:
    for name in SHIPPED_PACKS:
        text = shipped_pack_text(name)
        assert recompute.pack_digest(YAML(typ="safe").load(text)) == pack_digest(load_pack(text, name))
    for text in (PACK, PLAIN_PACK, resolving(), OBSERVING):  # all that a pack can say
        assert recompute.pack_digest(YAML(typ="safe").load(text)) == pack_digest(load_pack(text))
    assert recompute.ZONE_DATA == ZONE_DATA_VERSION
    assert tuple(sorted(recompute.IDENTITY_FIELDS)) == tuple(sorted(IDENTITY_FIELDS))
    stated = world.plane.profile
    profile = {"stream_name": stated.stream_name, "clock_skew": stated.clock_skew, "allowed_lateness": stated.allowed_lateness}
    assert recompute.run_config_digest(profile) == recompute.run_config_digest({"stream_name": stated.stream_name})
    assert recompute.run_config_digest(profile) == stated.run_config_digest
    for point in (CARD_PAYMENTS, HANDBOOK):
        assert recompute.rule_digest(point.rule.model_dump(mode="json")) == point.rule.ref.digest


def test_answers_and_decisions(recompute: ModuleType, world: LabelledPlane) -> None:
    plane = world.plane
    reader = plane.reader(plane.ensure_live())
    pins = plane.profile.context_pins
    page = next(iter(EventReader(plane.log, pins, "card_payment", plane.profile.clock_skew_us).pages(records=1_000)))
    event = max(page.events, key=lambda event: event.ts)
    request = CARD_PAYMENTS.request(event, pins)
    assert request is not None
    answer = reader.answer(request)
    assert recompute.snapshot_hash(json.loads(answer.body)) == answer.hash
    assert json.loads(answer.body)["provenance"]["requested"]["request_context"] is not None
    named = {"context_pins": pins.wire(), "event_type": "card_payment", "event_id": event.event_id}
    assert recompute.decision_id(named) == decision_id(pins, "card_payment", event.event_id)


def test_labels(recompute: ModuleType, world: LabelledPlane) -> None:
    profile = world.plane.profile
    labels = reported_labels(world.batches(), FRAUD_REPORTS["card_payments"], profile.context_pins, profile.clock_skew_us)
    assert len(labels.assertions) > 3
    for label in labels.assertions:
        assert recompute.assertion_id(json.loads(label.model_dump_json())) == label.assertion_id


def test_archive(recompute: ModuleType, world: LabelledPlane) -> None:
    archive, kind = world.build_context.archive, world.plane.log.position_kind.offset_kind
    folder = world.objects.folder
    assert folder is not None
    for partition_id in archive.partition_ids():
        for receipt in archive.receipts(partition_id, kind):
            stored = json.loads((folder / archive.receipt_path(receipt.span)).read_bytes())
            assert recompute.receipt_digest(stored) == stored["receipt_digest"]
            table = pq.read_table(folder / stored["segment_path"])
            columns = {name: [_plain(value) for value in table.column(name).to_pylist()] for name in table.column_names}
            named = {name: stored[name] for name in ("stream_name", "partition_id", "first", "next")}
            segment = {**named, "unreadable": [], "columns": columns}
            assert stored["unreadable"] == 0
            assert recompute.segment_content_digest(segment) == stored["content_digest"]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if hasattr(value, "isoformat") else value


def test_datasets(recompute: ModuleType, world: LabelledPlane, built: tuple[BuildRun, DatasetManifest]) -> None:
    run, manifest = built
    assert run.plan is not None
    assert recompute.dataset_identity(run.plan.wire()) == manifest.dataset_identity
    assert recompute.request_id(json.loads(run.model_dump_json(exclude_none=True))["intent"]) == run.run_key
    assert recompute.seal(manifest.wire()) == manifest.seal
    table = read_dataset(world.objects, manifest)
    columns = []
    for column in manifest.columns:
        values = [str(value) if "decimal" in column.type else _plain(value) for value in table.column(column.name).to_pylist()]
        values = [None if value == "None" else value for value in values]
        columns.append({"name": column.name, "type": column.type, "values": values})
    assert recompute.dataset_content_digest({"columns": columns}) == manifest.content_digest
    assert {column["type"].partition("(")[0] for column in columns} >= {"string", "int64", "decimal128"}
