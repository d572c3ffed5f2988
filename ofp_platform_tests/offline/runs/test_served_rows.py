"""Rows beside what was served for their events: the skew table of datasets whose basis is not that of the decision."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ofp_platform.offline.datasets.dataset_rows import DatasetRows
from ofp_platform.offline.runs.builder import build
from ofp_platform.offline.runs.served_rows import SkewedRows
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis
from ofp_platform.vocabulary.offline.build_run import RunState
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest, SkewTable
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.oracle.labelled_plane import DECIDED, LabelledPlane
from ofp_platform_tests.oracle.published import published_manifests

ANALYSIS = {"purpose": "analysis", "label": None, "policy": {"policy_id": "analysis", "revision": 1}}
GRID = {
    "kind": "per_grid", "key_type": "account", "from_utc": "2026-01-10T00:00:00Z", "to_utc": "2026-01-12T00:00:00Z",
    "step_seconds": 86_400,
}  # fmt: skip


@pytest.fixture
def world(dsn: str, tmp_path: Path) -> Iterator[LabelledPlane]:
    made = LabelledPlane.prepare(dsn, tmp_path, decided=False)
    yield made
    made.plane.close()


def built(world: LabelledPlane, name: str, **changes: Any) -> DatasetManifest:
    build_context = world.build_context
    run = build(build_context, build_context.ledger.submit(world.intent(name, **{**ANALYSIS, **changes})).run_key)
    assert run.state is RunState.DONE, run.refusal
    return next(manifest for manifest in published_manifests(world.objects) if manifest.dataset_name == name)


def append_late(world: LabelledPlane) -> None:
    """Append a payment of the decided event's account, a minute before it."""
    for batch in world.batches():
        if DECIDED in batch.event_ids:
            index = batch.event_ids.index(DECIDED)
            before = {"event_id": "late", "ts_utc": format_time(int(batch.ts[index]) - 60_000_000)}
            receipt = world.plane.log.append([batch.envelope(index).model_copy(update=before)])
            assert receipt.appended == 1
            return
    raise AssertionError("the event is in the log")


def test_rows_that_know_more_than_was_served_are_counted_feature_by_feature(world: LabelledPlane) -> None:
    world.decide()
    equal = built(world, "equal", as_of_basis="event_time").skew
    assert equal is not None
    assert (equal.rows, equal.decisions, equal.compared) == (400, 1, 1)
    shares = {name: (skew.compared, skew.differing, skew.share) for name, skew in equal.features.items()}
    served = {share for name, share in shares.items() if name.startswith("account_activity_v1__")}
    assert (served, set(shares.values()) - served) == ({(1, 0, "0.000000")}, {(0, 0, None)})
    append_late(world)
    skewed = built(world, "skewed", as_of_basis="event_time").skew
    assert skewed is not None
    assert (skewed.rows, skewed.decisions, skewed.compared) == (401, 1, 1)
    differing = {name for name, skew in skewed.features.items() if (skew.differing, skew.share) == (1, "1.000000")}
    assert "account_activity_v1__count_24h" in differing
    assert any(skew.differing == 0 for skew in skewed.features.values())
    decided = built(world, "decided", as_of_basis="decision")
    assert decided.skew is None
    assert decided.gates.served is not None


def test_nothing_compared_is_said(world: LabelledPlane) -> None:
    undecided = built(world, "undecided", as_of_basis="ingest_time").skew
    assert undecided is not None
    assert (undecided.decisions, undecided.compared) == (0, 0)
    assert {(skew.compared, skew.share) for skew in undecided.features.values()} == {(0, None)}
    groups = [{"group_name": "account_activity", "group_version": "v1"}]
    assert built(world, "grid", scope=GRID, as_of_basis="event_time", feature_groups=groups).skew is None


def test_a_decision_of_the_replay_is_another_dataset(world: LabelledPlane) -> None:
    before = built(world, "before", as_of_basis="event_time", parity_anchors="none")
    world.decide()
    after = built(world, "after", as_of_basis="event_time", parity_anchors="none")
    assert before.content_digest == after.content_digest
    assert before.dataset_identity != after.dataset_identity


def test_shares_are_of_the_decisions_whose_vector_is_stored_and_rounded_up(tmp_path: Path) -> None:
    rows = DatasetRows(tmp_path, AsOfBasis.EVENT_TIME, ("account",), ((0, 3),))
    table = pa.table({"row": pa.array([0, 1, 1, 2], pa.int64()), "decision_id": ["d-0", "d-1", "d-2", "lost"]})
    with pa.OSFile(str(tmp_path / "decided-00000.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)

    def snapshot(number: int) -> dict[str, Any]:
        lists = {
            "newest": [number, 2],
            "flags": [1] if number == 2 else [True],
            "shops": None,
            "counts": [{"category": "x", "value": number}],
        }
        group = {"group_name": "g", "group_version": "v1", "features": {"n": number, "extra": 1, **lists}}
        return {"values": [{"key_type": "account", "key_id": "a", "by_group": [group]}]}

    served = {"d-0": snapshot(1), "d-1": snapshot(2), "d-2": snapshot(3)}
    skewed = SkewedRows(lambda ids: {name: served[name] for name in ids if name in served}, rows)
    block = pa.table(
        {
            "account_id": ["a", "a", "a"],
            "g_v1__n": pa.array([1, 2, 3]),
            "g_v1__m": pa.array([None, None, None], pa.int64()),
            "g_v1__newest": pa.array([[1, 2], [2, 2], [1]]),
            "g_v1__flags": pa.array([[True], [True], [True]]),
            "g_v1__shops": pa.array([None, ["x"], None]),
            "g_v1__counts": pa.array([[{"category": "x", "value": 1}], [{"category": "x", "value": 2}], None]),
        }
    )
    assert list(skewed.blocks(iter([block]))) == [block]
    assert skewed.table() == SkewTable.model_validate(
        {
            "rows": 3,
            "decisions": 4,
            "compared": 3,
            "features": {
                "g_v1__n": {"compared": 3, "differing": 1, "share": "0.333334"},
                "g_v1__m": {"compared": 0, "differing": 0},
                "g_v1__newest": {"compared": 3, "differing": 1, "share": "0.333334"},
                "g_v1__flags": {"compared": 3, "differing": 1, "share": "0.333334"},
                "g_v1__shops": {"compared": 3, "differing": 2, "share": "0.666667"},
                "g_v1__counts": {"compared": 3, "differing": 1, "share": "0.333334"},
            },
        }
    )
