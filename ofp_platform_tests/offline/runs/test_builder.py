"""A build from intent to outcome: what it publishes, what it refuses, and what is left when it is stopped anywhere."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.compute as pc
import pytest

from ofp_platform.log.archive import archive_up_to
from ofp_platform.offline.datasets import feature_rows
from ofp_platform.offline.datasets.dataset_reader import read_dataset
from ofp_platform.offline.datasets.publication import load_manifest, verify_files
from ofp_platform.offline.labels.label_store import LabelStore, as_observed
from ofp_platform.offline.replay import memory_budget
from ofp_platform.offline.requests.intent_file import parse_intent
from ofp_platform.offline.requests.replay_resolution import resolve_replay
from ofp_platform.offline.requests.run_facts_view import load_run_facts, publish_run_facts
from ofp_platform.offline.runs import build_stages, replay_stage
from ofp_platform.offline.runs.build_bounds import SIZE
from ofp_platform.offline.runs.builder import build, stages
from ofp_platform.offline.sources.store_outage import answering
from ofp_platform.online.plane import profile_pack
from ofp_platform.online.state.progress import read_progress
from ofp_platform.online.state.projection import publish_registry
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import load_pack
from ofp_platform.storage.objects import ObjectStore, ObjectStoreUnavailable
from ofp_platform.vocabulary.offline.archive_receipt import ArchiveReceipt
from ofp_platform.vocabulary.offline.build_intent import AdmissionTimes, AsOfBasis
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.build_run import BuildRun, RunState
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.position import Basis, OffsetKind
from ofp_platform.vocabulary.times import parse_time
from ofp_platform_tests.oracle.labelled_plane import DECIDED, GROUPS, LABEL_AS_OF, LabelledPlane
from ofp_platform_tests.oracle.published import published_manifests
from ofp_platform_tests.oracle.simulated_log import append

ROOT = Path(__file__).parents[3]
CRASH_POINTS = ["build.planned", "build.replayed", "build.staged", "build.files_published", "build.manifest_published"]


@pytest.fixture
def world(dsn: str, tmp_path: Path) -> Iterator[LabelledPlane]:
    made = LabelledPlane.prepare(dsn, tmp_path)
    yield made
    made.plane.close()


def built(world: LabelledPlane, **changes: Any) -> BuildRun:
    build_context = world.build_context
    return build(build_context, build_context.ledger.submit(world.intent(**changes)).run_key)


def manifest_of(world: LabelledPlane, run: BuildRun) -> DatasetManifest:
    assert run.state is RunState.DONE, run.refusal
    assert run.outcome is not None
    return load_manifest(world.objects, run.outcome["dataset_name"], run.outcome["dataset_identity"])


def refused(run: BuildRun) -> BuildReason:
    assert run.state is RunState.FAILED
    assert run.refusal is not None
    return run.refusal.reason


def test_a_training_set_is_published_with_what_it_was_made_of(world: LabelledPlane) -> None:
    manifest = manifest_of(world, built(world))
    table = read_dataset(world.objects, manifest)
    assert table.num_rows == manifest.row_count == 400
    assert [column.name for column in manifest.columns] == table.column_names
    assert {column.role for column in manifest.columns} == {"row_key", "as_of", "payload", "feature", "label"}
    completeness = manifest.gates.completeness
    assert completeness.records == sum(span.next for span in manifest.replay_basis.partitions if isinstance(span.next, int))
    assert completeness.duplicates > 0
    assert sum(completeness.failures_by_reason.values()) == completeness.failed > 0
    labels = manifest.gates.labels
    assert labels is not None
    assert labels.coverage == "1.000000"
    assert manifest.gates.label_rows_checked == pc.sum(pc.is_valid(table["label_value"])).as_py()
    assert manifest.gates.feature_rows_checked > 0
    assert verify_files(world.objects, manifest) == []
    index = world.build_context.index
    assert [row.dataset_identity for row in index.list()] == [manifest.dataset_identity]
    index.add(manifest)
    with world.plane.pool.connection() as connection:
        connection.execute("UPDATE ofp.dataset_index SET manifest_digest = 'other'")
    with pytest.raises(BuildRefused, match=f"PUBLICATION_CONFLICT.*{manifest.dataset_identity} with another manifest_digest"):
        index.add(manifest)
    assert list((world.folder / "builds").iterdir()) == []


@pytest.mark.parametrize("as_of_basis", [AsOfBasis.EVENT_TIME, AsOfBasis.INGEST_TIME])
@pytest.mark.parametrize("processes_from", [0, 10**9], ids=["in processes", "in this process"])
def test_the_memory_of_a_build_changes_no_byte_of_its_dataset(
    world: LabelledPlane, monkeypatch: pytest.MonkeyPatch, as_of_basis: AsOfBasis, processes_from: int
) -> None:
    expected = manifest_of(world, built(world, as_of_basis=as_of_basis))
    for name in ("PROCESS_BYTES", "BLOCK_BYTES"):
        monkeypatch.setattr(memory_budget, name, 1_000)
    frugal = replace(world.build_context, memory=20_000, processes_from=processes_from)
    shards = []

    def noting(*arguments: Any, **more: Any) -> Any:
        shards.append(arguments[3].shards)
        return dataset(*arguments, **more)

    dataset = build_stages.dataset
    monkeypatch.setattr(build_stages, "dataset", noting)
    run = build(frugal, frugal.ledger.submit(world.intent(dataset_name="frugal", as_of_basis=as_of_basis)).run_key)
    manifest = manifest_of(world, run)
    assert shards[0] > 16
    assert manifest.content_digest == expected.content_digest
    assert [file.sha256 for file in manifest.files] == [file.sha256 for file in expected.files]
    assert manifest.gates == expected.gates


def test_records_beyond_the_memory_fail_in_words_and_may_be_built_with_more(
    world: LabelledPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        for name in ("PROCESS_BYTES", "BLOCK_BYTES"):
            patch.setattr(memory_budget, name, 1)
        poor = replace(world.build_context, memory=50)
        run = build(poor, poor.ledger.submit(world.intent()).run_key)
    assert refused(run) is BuildReason.STORE_UNAVAILABLE
    assert run.refusal is not None
    assert "a memory of 1 MB is too small for " in run.refusal.message
    world.build_context.ledger.reopen(run.run_key)
    assert build(world.build_context, run.run_key).state is RunState.DONE


SHORT_WINDOWS = """
pack_id: short_windows
revision: 1
description: Windows of two days.
events:
  card_payment:
    keys: {account: account_id}
    fields: {amount_minor: integer}
groups:
  - name: account_velocity
    version: v1
    key_type: account
    ttl_seconds: 86400
    features:
      - {name: count_1d, aggregation: count, events: [card_payment], window: 1d, delay: 1d}
      - {name: sum_1d, aggregation: sum, events: [card_payment], value: amount_minor, window: 1d}
"""


def publish_pack(world: LabelledPlane, text: str) -> dict[str, Any]:
    """The reference of a pack that is published now."""
    compiled = compile_pack(load_pack(text))
    with world.plane.pool.connection() as connection:
        publish_registry(connection, compiled)
    return {"pack_id": compiled.pack.pack_id, "revision": compiled.pack.revision}


def test_the_same_request_converges_however_often(world: LabelledPlane) -> None:
    build_context = world.build_context
    runs: list[BuildRun] = []

    def submit_and_build() -> None:
        mine = world.build_context
        runs.append(build(mine, mine.ledger.submit(world.intent()).run_key))

    threads = [threading.Thread(target=submit_and_build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({run.run_key for run in runs}) == 1
    final = build_context.ledger.show(runs[0].run_key)
    assert (final.state, final.attempts) == (RunState.DONE, 1)
    assert len(list(published_manifests(world.objects))) == 1
    with build_context.ledger.claim_next() as lease:
        assert lease is None


def test_digests_do_not_depend_on_archive_or_workers(world: LabelledPlane, module_dsn: str, tmp_path: Path) -> None:
    first = manifest_of(world, built(world, as_of_basis="event_time"))
    other = tmp_path / "other"
    other.mkdir()
    again = LabelledPlane.prepare(module_dsn, other, archived=False)
    try:
        alone = replace(again.build_context, workers=1)
        second = manifest_of(again, build(alone, alone.ledger.submit(again.intent(as_of_basis="event_time")).run_key))
    finally:
        again.plane.close()
    assert second.content_digest == first.content_digest
    assert second.dataset_identity == first.dataset_identity


def test_digests_do_not_depend_on_who_replays(world: LabelledPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    first = manifest_of(world, built(world))
    original, begun = replay_stage.replay, []

    def replay(*arguments: Any) -> Any:
        begun.append(arguments[-1])
        return original(*arguments)

    monkeypatch.setattr(replay_stage, "replay", replay)
    eager = replace(world.build_context, processes_from=0)
    second = manifest_of(world, build(eager, eager.ledger.submit(world.intent(dataset_name="another")).run_key))
    assert [one is not None for one in begun] == [True]
    assert second.content_digest == first.content_digest
    assert second.gates == first.gates


# ---- the closure gate -------------------------------------------------------------------------------------------------


def test_an_archive_that_differs_from_the_log_makes_no_training_set(world: LabelledPlane) -> None:
    with world.plane.pool.connection() as connection:  # another content at the same positions, as only a broken log has it
        connection.execute(
            "UPDATE ofp.log_block AS one SET block = other.block, raw_bytes = other.raw_bytes FROM ofp.log_block AS other"
            " WHERE one.partition_id = '0000' AND one.first_offset = 0 AND other.partition_id = '0001' AND other.first_offset = 0"
        )
    assert refused(built(world)) is BuildReason.REPLAY_MISMATCH
    assert list(published_manifests(world.objects)) == []
    with world.plane.pool.connection() as connection:
        recorded = connection.execute("SELECT DISTINCT partition_id FROM ofp.archive_conflict").fetchall()
    assert recorded == [("0000",)]


def test_an_id_with_two_contents_that_the_projection_forgot_is_told_by_both_planes(world: LabelledPlane) -> None:
    plane = world.plane
    live = plane.ensure_live()
    append(plane.log)  # with conflicts
    while plane.projector(live).apply_available(max_records=1_000) is not None:
        pass
    with plane.pool.connection() as connection:
        seen = read_progress(connection, live.projection_id)
        rows = connection.execute("DELETE FROM ofp.anomaly RETURNING event_id").fetchall()
        connection.execute("UPDATE ofp.projection_partition SET anomalies = 0")
    assert seen.anomalies == len(rows) > 2
    count = len({event_id for (event_id,) in rows})
    label = {"label_type": "fraud", "as_of_utc": "2026-01-02T00:00:00Z", "maturity_seconds": 7 * 86_400}
    for _ in range(2):
        run = built(world, label=label)
        assert refused(run) is BuildReason.EVENT_ANOMALY
        assert run.refusal is not None
        assert run.refusal.message.startswith(f"{count} event ids have several contents")
        with plane.pool.connection() as connection:
            assert read_progress(connection, live.projection_id).anomalies == len(rows)
            assert connection.execute("SELECT event_id FROM ofp.anomaly ORDER BY 1").fetchall() == sorted(rows)


SINCE_THE_TENTH = {"select": "admission_times", "from_utc": "2026-01-10T00:00:00Z", "to_utc": "2026-03-01T00:00:00Z"}


@pytest.mark.parametrize("purpose", ["training", "analysis"])
def test_a_window_that_reaches_behind_the_replay_makes_no_row(world: LabelledPlane, purpose: str) -> None:
    late = built(world, purpose=purpose, replay=SINCE_THE_TENTH)
    assert (refused(late), late.refusal and late.refusal.field) == (BuildReason.HISTORY_TOO_SHORT, "replay")
    assert list(published_manifests(world.objects)) == []


@pytest.mark.parametrize("scope", [
    {"kind": "per_entity", "key_type": "account", "rows": [{"key_id": "account-1", "as_of_time_utc": "2026-01-20T00:00:00Z"}]},
    {"kind": "per_grid", "key_type": "account", "from_utc": "2026-01-20T00:00:00Z", "to_utc": "2026-01-21T00:00:00Z",
     "step_seconds": 86_400},
])  # fmt: skip
def test_rows_of_entities_are_held_to_the_same_history(world: LabelledPlane, scope: dict[str, Any]) -> None:
    changes = {"purpose": "analysis", "scope": scope, "label": None, "feature_groups": GROUPS[:1]}
    assert refused(built(world, **changes, replay=SINCE_THE_TENTH)) is BuildReason.HISTORY_TOO_SHORT


@pytest.fixture
def in_two_segments(dsn: str, tmp_path: Path) -> Iterator[LabelledPlane]:
    """A world that was archived on 2026-01-10 and at the end."""
    made = LabelledPlane.prepare(dsn, tmp_path, archived=False)
    archive = made.build_context.archive
    spans = resolve_replay(AdmissionTimes(**SINCE_THE_TENTH), made.build_context.stream_records).basis.partitions
    tenth = Basis(stream_name=made.plane.log.stream_name, partitions=tuple(span.first for span in spans))
    for basis in (tenth, made.plane.log.ends()):
        archive_up_to(made.plane.ranges, archive, basis)
    yield made
    made.plane.close()


def test_a_replay_that_begins_behind_every_window_gives_the_same_values(in_two_segments: LabelledPlane) -> None:
    world = in_two_segments
    short = {"purpose": "analysis", "label": None, "feature_groups": [{"group_name": "account_velocity", "group_version": "v1"}]}
    pack = publish_pack(world, SHORT_WINDOWS)
    rows = {"kind": "per_event", "event_types": ["card_payment"], "from_utc": "2026-01-14T00:00:00Z"}
    whole = manifest_of(world, built(world, **short, feature_pack=pack, scope=rows))
    late_replay = SINCE_THE_TENTH
    late = manifest_of(world, built(world, **short, feature_pack=pack, scope=rows, replay=late_replay))
    assert all(span.start for span in late.replay_basis.partitions)
    assert (late.content_digest, late.row_count) == (whole.content_digest, whole.row_count)
    assert late.row_count > 0
    earlier = built(world, **short, feature_pack=pack, scope={**rows, "from_utc": "2026-01-09T00:00:00Z"}, replay=late_replay)
    assert refused(earlier) is BuildReason.HISTORY_TOO_SHORT


def test_an_old_receipt_proves_no_history(in_two_segments: LabelledPlane) -> None:
    world = in_two_segments
    late = {"replay": SINCE_THE_TENTH, "feature_pack": publish_pack(world, SHORT_WINDOWS)}
    short = {"purpose": "analysis", "label": None, "feature_groups": [{"group_name": "account_velocity", "group_version": "v1"}]}
    rows = {"kind": "per_event", "event_types": ["card_payment"], "from_utc": "2026-01-14T00:00:00Z"}
    assert built(world, **short, **late, scope=rows).state is RunState.DONE
    archive = world.build_context.archive
    receipts = [receipt for name in archive.partition_ids() for receipt in archive.receipts(name, OffsetKind.EXCLUSIVE_NEXT)]
    for receipt in receipts:
        fields = receipt.model_dump(exclude={"event_time_max", "receipt_digest", "contract_version"})
        path = world.folder / "objects" / archive.receipt_path(receipt.span)
        path.chmod(0o600)
        path.write_bytes(ArchiveReceipt.sealed(**fields).wire_bytes())
    run = built(world, **short, **late, scope=rows, dataset_name="of_old_receipts")
    assert refused(run) is BuildReason.HISTORY_TOO_SHORT
    assert run.refusal is not None
    assert "states no event time" in run.refusal.message


def test_a_missing_label_basis_is_refused(world: LabelledPlane) -> None:
    wire = world.intent().model_dump(mode="json", exclude_none=True)
    del wire["label"]["as_of_utc"]
    with pytest.raises(BuildRefused) as caught:
        parse_intent(wire)
    assert (caught.value.reason, caught.value.field) == (BuildReason.LABEL_ASOF_MISSING, "label.as_of_utc")


def test_an_unresolved_feature_profile_is_refused(world: LabelledPlane) -> None:
    run = built(world, feature_pack={"pack_id": "card_payments", "revision": 99})
    assert refused(run) is BuildReason.FEATURE_PROFILE_UNRESOLVED
    assert run.refusal is not None
    assert run.refusal.field == "feature_pack.revision"


def test_missing_pass_evidence_is_refused(world: LabelledPlane) -> None:
    facts = load_run_facts(world.plane.pool, "facts/run-1", world.plane.profile.context_pins, "card-payments")
    without = facts.model_copy(update={"reference": "facts/unproven", "evidence": facts.evidence[:1]})
    publish_run_facts(world.plane.pool, without)
    assert refused(built(world, run_facts_ref="facts/unproven")) is BuildReason.PASS_EVIDENCE_MISSING


def test_the_gates_asked_for_and_the_labels_are_part_of_the_identity(world: LabelledPlane) -> None:
    pins = world.plane.profile.context_pins
    analysis = {"purpose": "analysis", "policy": {"policy_id": "analysis", "revision": 1}}
    without, with_parity = (
        manifest_of(world, built(world, parity_anchors=anchors, **analysis)) for anchors in ("none", "all_decisions_in_replay")
    )
    assert without.dataset_identity != with_parity.dataset_identity
    assert without.content_digest == with_parity.content_digest
    assert (without.parity_request.parity_anchors, with_parity.parity_request.parity_anchors) == (
        "none",
        "all_decisions_in_replay",
    )
    # an assertion that is loaded later, about what was known before
    late = LabelAssertion(
        event_class="card_payment",
        event_id="payment-0000003",
        label_type="fraud",
        value=1,
        effective_time_utc="2026-01-02T00:00:00Z",
        observed_time_utc="2026-01-02T00:00:00Z",
        source="planted",
    )
    LabelStore(world.plane.pool, pins).append([late], as_observed)
    again = manifest_of(world, built(world, name="again", **analysis))
    assert again.label_basis is not None
    assert with_parity.label_basis is not None
    assert again.label_basis.next_sequence == with_parity.label_basis.next_sequence + 1
    assert again.dataset_identity != with_parity.dataset_identity
    assert again.content_digest != with_parity.content_digest
    # the request of before is what it was
    assert manifest_of(world, built(world, **analysis)) == with_parity


def test_one_identity_is_one_dataset_under_every_name(world: LabelledPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    first = manifest_of(world, built(world))
    assert manifest_of(world, built(world, name="the_same")).content_digest == first.content_digest
    monkeypatch.setattr(build_stages, "check_features", lambda *_: 1)
    assert refused(built(world, name="another")) is BuildReason.PUBLICATION_CONFLICT
    assert len(list(published_manifests(world.objects))) == 2


def test_labels_loaded_to_mend_a_refused_build_count(world: LabelledPlane) -> None:
    changes = {"label": {"label_type": "dispute", "as_of_utc": LABEL_AS_OF, "maturity_seconds": 7 * 86_400}}
    run = built(world, **changes)
    assert refused(run) is BuildReason.LABEL_COVERAGE_BELOW_POLICY
    dispute = LabelAssertion(
        event_class="card_payment",
        event_id="payment-0000003",
        label_type="dispute",
        value=1,
        effective_time_utc=LABEL_AS_OF,
        observed_time_utc=LABEL_AS_OF,
        source="planted",
    )
    LabelStore(world.plane.pool, world.plane.profile.context_pins).append([dispute], as_observed)
    world.build_context.ledger.reopen(run.run_key)
    mended = build(world.build_context, run.run_key)
    assert (mended.state, mended.attempts) == (RunState.DONE, 2)


# ---- leaks -------------------------------------------------------------------------------------------------------------


def test_a_label_observed_after_the_as_of_is_caught(world: LabelledPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = world.plane.profile.context_pins
    event = "payment-0000003"
    tomorrow = LabelAssertion(
        event_class="card_payment",
        event_id=event,
        label_type="fraud",
        value=1,
        effective_time_utc="2026-01-19T00:00:00Z",
        observed_time_utc="2026-01-19T00:00:00Z",
        source="planted",
    )
    LabelStore(world.plane.pool, pins).append([tomorrow], as_observed)
    honest = manifest_of(world, built(world))
    row = read_dataset(world.objects, honest).filter(pc.field("event_id") == event)
    assert row["label_value"].to_pylist() == [0]

    original = build_stages.label_columns

    def leaking(resolved: Any, *arguments: Any) -> Any:
        everything = LabelStore(world.plane.pool, pins).assertions("fraud")
        return original(replace(resolved, table=everything), *arguments)

    monkeypatch.setattr(build_stages, "label_columns", leaking)
    assert refused(built(world, name="leaking")) is BuildReason.LEAKAGE_DETECTED
    assert len(list(published_manifests(world.objects))) == 1


def test_a_late_event_in_an_ingest_time_build_is_caught(world: LabelledPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    original = feature_rows._columns

    def hindsight(plan: Any, events: Any, rows: Any, shape: Any) -> Any:
        return original(plan, events, rows, replace(shape, as_of_basis=AsOfBasis.EVENT_TIME))

    monkeypatch.setattr(feature_rows, "_columns", hindsight)
    run = built(world)
    assert refused(run) is BuildReason.LEAKAGE_DETECTED
    assert list(published_manifests(world.objects)) == []
    assert manifest_of(world, built(world, as_of_basis="event_time")).row_count == 400


# ---- stopped anywhere --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_builder_killed_there_leaves_nothing_or_everything(world: LabelledPlane, dsn: str, point: str) -> None:
    build_context = world.build_context
    run_key = build_context.ledger.submit(world.intent()).run_key
    command = [sys.executable, "-m", "ofp_platform_tests.oracle.builder_process", dsn, str(world.folder), run_key]
    killed = subprocess.run(command, cwd=ROOT, env={**os.environ, "OFP_CRASH_POINT": point}, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    for manifest in published_manifests(world.objects):
        assert verify_files(world.objects, manifest) == []
    after = {path: world.objects.get(path) for path in world.objects.list("ofs")}
    run = build(build_context, run_key)
    manifest = manifest_of(world, run)
    assert run.attempts == 2
    assert verify_files(world.objects, manifest) == []
    assert {path: world.objects.get(path) for path in after} == after
    assert len(list(published_manifests(world.objects))) == 1


def test_a_full_object_store_leaves_publication_pending(world: LabelledPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    full = True
    original = ObjectStore.put_if_absent

    def put(self: ObjectStore, path: str, data: bytes) -> bool:
        if full and path.startswith("ofs/"):
            raise ObjectStoreUnavailable("no space left on device")
        return original(self, path, data)

    monkeypatch.setattr(ObjectStore, "put_if_absent", put)
    run = built(world)
    assert run.state is RunState.PUBLISH_PENDING
    assert run.refusal is not None
    assert run.refusal.reason is BuildReason.STORE_UNAVAILABLE
    assert world.objects.list("ofs") == []
    full = False

    def nothing(*arguments: Any, **named: Any) -> Any:
        raise AssertionError("a publish-only attempt neither replays nor computes")

    monkeypatch.setattr(replay_stage, "replay", nothing)
    monkeypatch.setattr(build_stages, "dataset", nothing)
    run = build(world.build_context, run.run_key)
    assert manifest_of(world, run).row_count == 400
    assert (run.attempts, run.publish_attempts) == (1, 1)


def test_a_database_that_goes_away_is_tried_again(world: LabelledPlane, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = build_stages.labels

    def away(*arguments: Any) -> Any:
        with answering():
            raise psycopg.OperationalError("the server closed the connection unexpectedly")

    monkeypatch.setattr(build_stages, "labels", away)
    run = built(world)
    assert refused(run) is BuildReason.STORE_UNAVAILABLE
    monkeypatch.setattr(build_stages, "labels", original)
    build_context = world.build_context
    build_context.ledger.retry(run.run_key)
    assert manifest_of(world, build(build_context, run.run_key)).row_count == 400


def test_a_damaged_archive_segment_fails_the_run_and_its_repair_mends_it(world: LabelledPlane) -> None:
    root = world.folder / "objects"
    segment = sorted(root.glob("archive/**/*.parquet"))[0]
    good = segment.read_bytes()
    segment.write_bytes(good[:-100] + bytes([good[-100] ^ 1]) + good[-99:])
    run = built(world)
    assert refused(run) is BuildReason.ARCHIVE_DAMAGED
    assert list(published_manifests(world.objects)) == []
    segment.write_bytes(good)
    build_context = world.build_context
    build_context.ledger.reopen(run.run_key)
    assert manifest_of(world, build(build_context, run.run_key)).row_count == 400


def test_a_new_dataset_names_the_one_that_it_replaces(world: LabelledPlane) -> None:
    first = manifest_of(world, built(world))
    label = {"label_type": "fraud", "as_of_utc": "2026-01-19T00:00:00Z", "maturity_seconds": 7 * 86_400}
    second = manifest_of(world, built(world, label=label, supersedes=first.dataset_identity))
    assert second.supersedes == first.dataset_identity
    listed = {row.dataset_identity: row.superseded_by for row in world.build_context.index.list()}
    assert listed == {first.dataset_identity: (second.dataset_identity,), second.dataset_identity: ()}
    assert read_dataset(world.objects, first).num_rows == 400


def test_every_stage_leaves_a_receipt(world: LabelledPlane) -> None:
    build_context = world.build_context
    run_key = build_context.ledger.submit(world.intent()).run_key
    with build_context.ledger.claim(run_key) as lease:
        assert lease is not None
        seen = list(stages(build_context, lease))
    assert [stage.name for stage in seen] == ["plan", "replay", "parity", "labels", "staged", "manifest"]
    receipts = [(receipt.stage, receipt.digest) for receipt in build_context.ledger.receipts(run_key)]
    (size,) = [receipt for receipt in receipts if receipt[0] == SIZE]
    assert receipts.index(size) == 3  # behind the replay and its parity, before the first row
    receipts.remove(size)
    assert receipts == [(stage.name, stage.digest) for stage in seen]


def test_on_demand_features_are_named_as_left_out(world: LabelledPlane) -> None:
    groups = [
        {"group_name": group.name, "group_version": group.version}
        for group in profile_pack(world.plane.profile).groups
        if group.on_demand
    ]
    manifest = manifest_of(world, built(world, feature_groups=groups))
    assert manifest.features_left_out
    assert not set(manifest.features_left_out) & {column.name for column in manifest.columns}


WITH_POINTS = SHORT_WINDOWS.replace("amount_minor: integer}", "amount_minor: integer, points: integer}").replace(
    "revision: 1", "revision: 2"
)
WITH_POINTS += """\
  - name: account_points
    version: v1
    key_type: account
    ttl_seconds: 86400
    features:
      - {name: points_1d, aggregation: sum, events: [card_payment], value: points, window: 1d}
"""


AMENDABLE = SHORT_WINDOWS.replace("revision: 1", "revision: 3").replace(
    "amount_minor: integer}\n", "amount_minor: integer}\n    amendments: {by: [card_payment]}\n"
)


def test_labels_of_voided_events_and_amendments_of_no_event_are_reported(world: LabelledPlane) -> None:
    free = {"purpose": "analysis", "policy": {"policy_id": "analysis", "revision": 1}}
    wanted = {"scope": {"kind": "per_event", "event_types": ["card_payment"]}, "feature_pack": publish_pack(world, AMENDABLE)}
    wanted["feature_groups"] = [{"group_name": "account_velocity", "group_version": "v1"}]
    before = manifest_of(world, built(world, **free, **wanted))
    labels = before.gates.labels
    assert labels is not None
    assert (labels.voided, labels.voided_events, before.gates.completeness.amendments) == (0, (), 0)
    table = read_dataset(world.objects, before).filter(pc.field("label_observed_time").is_valid())
    fraud_id, other_id = table["event_id"][0].as_py(), DECIDED
    assert other_id not in table["event_id"].to_pylist()
    envelopes = {batch.event_ids[i]: batch.envelope(i) for batch in world.batches() for i in range(len(batch))}
    voids = []
    for name in (fraud_id, other_id, "payment-of-nobody"):
        event = envelopes.get(name, envelopes[fraud_id]).model_dump(mode="json", exclude_none=True)
        amends = {"event_class": "card_payment", "event_id": name, "ts_utc": event["ts_utc"], "kind": "void"}
        voids.append({**event, "event_id": f"void-of-{name}", "amends": amends})
    at = world.plane.log.append(voids, lambda _: parse_time("2026-01-21T00:00:00Z"))
    assert at.appended == 3
    manifest = manifest_of(world, built(world, **free, **wanted))
    counts, labels = manifest.gates.completeness, manifest.gates.labels
    assert labels is not None
    assert (labels.voided, labels.voided_events) == (1, (f"card_payment/{fraud_id}",))
    assert labels.labelled == before.gates.labels.labelled  # type: ignore[union-attr]
    assert (counts.amendments, counts.unmet_amendments, len(counts.first_unmet)) == (3, 1, 1)
    partition, offset = counts.first_unmet[0].split("/")
    batch = world.plane.log.read(partition, None, 10_000)
    assert batch.event_ids[batch.offsets.index(int(offset))] == "void-of-payment-of-nobody"


def test_failed_records_above_the_policy_make_no_training_set_of_their_group(world: LabelledPlane) -> None:
    """No event has the field of the group that was added: the groups beside it do not suffer, and it is no training set."""
    old, new = (
        {"feature_pack": publish_pack(world, text), "scope": {"kind": "per_event", "event_types": ["card_payment"]}}
        for text in (SHORT_WINDOWS, WITH_POINTS)
    )
    velocity, points = ([{"group_name": name, "group_version": "v1"}] for name in ("account_velocity", "account_points"))
    free = {"purpose": "analysis", "label": None, "policy": {"policy_id": "analysis", "revision": 1}}
    before = manifest_of(world, built(world, **old, **free, feature_groups=velocity))
    after = manifest_of(world, built(world, **new, **free, feature_groups=velocity))
    assert (after.row_count, after.content_digest) == (before.row_count, before.content_digest)
    counted = after.gates.completeness
    assert before.gates.completeness.failed_for_groups == counted.failed_for_groups < 20
    assert counted.group_failures_by_reason["MISSING_FIELD"] >= 400
    run = built(world, **new, feature_groups=points)
    assert refused(run) is BuildReason.FAILED_RECORDS_ABOVE_POLICY
    assert run.refusal is not None
    assert "policy fraud_training revision 1 allows a share of 0.05" in run.refusal.message
    assert built(world, **new, **free, feature_groups=points).refusal is not None  # no event feeds it: there is no row
