"""Builds within bounds: refused before they begin, before their first row, while they run; cancelled; and a day's quota."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ofp_platform.offline.datasets import dataset_rows, feature_leakage, feature_rows
from ofp_platform.offline.datasets.publication import load_manifest
from ofp_platform.offline.replay.archived_fold import ArchivedFold
from ofp_platform.offline.runs import build_stages, builder, replay_stage, run_parity
from ofp_platform.offline.runs.build_bounds import SIZE, BuildGuard, folder_bytes
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.runs.builder import build
from ofp_platform.offline.runs.run_lease import LeaseLost
from ofp_platform.offline.runs.run_ledger import RunLedger
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.build_run import BuildRun, RunState
from ofp_platform.vocabulary.profile import BuildLimits
from ofp_platform_tests.oracle.labelled_plane import LabelledPlane
from ofp_platform_tests.oracle.published import published_manifests

GRID: dict[str, Any] = {
    "scope": {
        "kind": "per_grid",
        "key_type": "account",
        "from_utc": "2026-01-20T00:00:00Z",
        "to_utc": "2026-01-20T01:00:00Z",
        "step_seconds": 60,
    },
    "feature_groups": [{"group_name": "account_activity", "group_version": "v1"}],
    "purpose": "analysis",
    "label": None,
    "parity_anchors": "none",
    "policy": {"policy_id": "analysis", "revision": 1},
}


@pytest.fixture
def world(dsn: str, tmp_path: Path) -> Iterator[LabelledPlane]:
    prepared = LabelledPlane.prepare(dsn, tmp_path)
    yield prepared
    prepared.plane.close()


def limited(world: LabelledPlane, **limits: int) -> BuildContext:
    """A context whose guard looks at every chance: each look at its clock is a second later, and takes no time."""
    seconds = itertools.count()
    return replace(world.build_context, limits=BuildLimits(**limits), clock=lambda: float(next(seconds)))


def built(context: BuildContext, world: LabelledPlane, name: str = "d", **changes: Any) -> BuildRun:
    return build(context, context.ledger.submit(world.intent(name, **changes)).run_key)


def refusal_of(run: BuildRun) -> tuple[BuildReason, str]:
    assert run.state is RunState.FAILED
    assert run.refusal is not None
    return run.refusal.reason, run.refusal.message


def nothing_is_left(world: LabelledPlane) -> bool:
    folder = world.folder / "builds"
    return not (folder.exists() and list(folder.iterdir())) and not list(published_manifests(world.objects))


def test_a_replay_of_too_many_records_is_refused_before_it_begins(world: LabelledPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_stage, "start_replay", None)
    reason, words = refusal_of(built(limited(world, max_records=100), world))
    assert reason is BuildReason.BUILD_TOO_LARGE
    assert "records, more than builds.max_records of the profile, 100" in words
    assert nothing_is_left(world)


def test_bytes_are_estimated_before_a_build_begins(world: LabelledPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_stage, "start_replay", None)
    listed = {**GRID, "scope": {**GRID["scope"], "key_ids": [f"account-{n}" for n in range(100)]}}
    reason, words = refusal_of(built(limited(world, max_bytes=1_000_000), world, **listed))
    assert reason is BuildReason.BUILD_TOO_LARGE
    assert "6,000 rows take about" in words
    assert "more than builds.max_bytes of the profile, 1,000,000" in words


def test_a_grid_over_all_entities_is_counted_before_its_first_row(world: LabelledPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_stages, "dataset", None)
    reason, words = refusal_of(built(limited(world, max_rows=600), world, **GRID))
    assert reason is BuildReason.BUILD_TOO_LARGE
    assert "rows in this replay, more than builds.max_rows of the profile, 600" in words
    assert nothing_is_left(world)


def test_events_of_a_scope_are_counted_before_its_first_row(world: LabelledPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_stages, "dataset", None)
    assert refusal_of(built(limited(world, max_rows=399), world))[0] is BuildReason.BUILD_TOO_LARGE
    assert nothing_is_left(world)


def test_the_estimate_is_of_the_size_that_it_becomes(world: LabelledPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    check = BuildGuard.check_now

    def measure(guard: BuildGuard) -> None:
        sizes.append(folder_bytes(guard.folder))
        check(guard)

    monkeypatch.setattr(BuildGuard, "check_now", measure)
    monkeypatch.setattr(BuildGuard, "check", measure)  # at each place where it may, whatever the time is
    context = limited(world)
    for name, changes in (("grid", GRID), ("events", {})):
        sizes.clear()
        run = built(context, world, name, **changes)
        assert run.outcome is not None
        size = next(receipt.content for receipt in context.ledger.receipts(run.run_key) if receipt.stage == SIZE)
        assert size["rows"] >= run.outcome["rows"] > 0
        assert max(sizes) / 4 < size["bytes"] < 4 * max(sizes)


def test_a_build_that_grows_past_its_bytes_is_stopped(world: LabelledPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "check_plan_size", lambda *_: None)
    monkeypatch.setattr(builder, "check_folded_size", lambda *_: None)
    reason, words = refusal_of(built(limited(world, max_bytes=50_000), world))
    assert reason is BuildReason.BUILD_TOO_LARGE
    assert "it was stopped, and they are removed" in words
    assert nothing_is_left(world)


def test_a_day_of_one_principal(world: LabelledPlane) -> None:
    context = limited(world, max_rows_a_day=1_000)
    assert built(context, world, "first", submitted_by="me").state is RunState.DONE
    assert built(context, world, "second", submitted_by="me").state is RunState.DONE
    reason, words = refusal_of(built(context, world, "third", submitted_by="me"))
    assert reason is BuildReason.QUOTA_EXCEEDED
    assert words.startswith("builds of me wrote about 960 rows in")
    assert "builds.max_rows_a_day of the profile is 1,000" in words
    assert built(context, world, "of_another", submitted_by=None).state is RunState.DONE
    frugal = limited(world, max_bytes_a_day=1_000)
    assert refusal_of(built(frugal, world, "fourth", submitted_by="you"))[0] is BuildReason.QUOTA_EXCEEDED


PLACES: list[tuple[Any, str]] = [
    (replay_stage, "check_archive"),
    (replay_stage, "fold_replay"),
    (run_parity, "compare_all"),
    (dataset_rows, "_events_in_order"),
    (feature_rows, "compute_shard"),
    (feature_leakage, "check_shard"),
    (build_stages, "write_dataset"),
    (builder, "publish_files"),
]


def test_a_folder_that_moves_while_it_is_measured_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kept", "moved"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"12345")
    scandir = os.scandir

    def moving(path: Any) -> Any:
        if str(path).endswith("moved"):
            raise FileNotFoundError(2, "moved meanwhile", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", moving)
    assert folder_bytes(tmp_path) == 5


@pytest.mark.parametrize(("module", "name"), PLACES, ids=[name for _, name in PLACES])
def test_a_build_that_is_cancelled_anywhere_stops_and_leaves_nothing(
    world: LabelledPlane, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    context = limited(world)
    run_key = context.ledger.submit(world.intent()).run_key
    original: Callable[..., Any] = getattr(module, name)

    def cancelling(*arguments: Any, **more: Any) -> Any:
        context.ledger.cancel(run_key, "an operator")
        return original(*arguments, **more)

    monkeypatch.setattr(module, name, cancelling)
    with pytest.raises(LeaseLost, match=r"cancelled by an operator|is over"):
        build(context, run_key)
    assert refusal_of(context.ledger.show(run_key)) == (BuildReason.CANCELLED, "cancelled by an operator")
    assert nothing_is_left(world)
    monkeypatch.setattr(module, name, original)
    context.ledger.reopen(run_key)
    run = build(context, run_key)
    assert run.outcome is not None
    load_manifest(world.objects, run.outcome["dataset_name"], run.outcome["dataset_identity"])


def test_processes_that_fold_are_ended_with_a_cancelled_build(world: LabelledPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    context = replace(limited(world), processes_from=0)
    run_key = context.ledger.submit(world.intent()).run_key
    wait, processes = ArchivedFold.wait, []

    def cancelling(fold: ArchivedFold, check: Callable[[], None]) -> None:
        processes.extend(process for process, _ in fold._running)
        context.ledger.cancel(run_key, "an operator")
        wait(fold, check)

    monkeypatch.setattr(ArchivedFold, "wait", cancelling)
    with pytest.raises(LeaseLost, match="cancelled by an operator"):
        build(context, run_key)
    assert processes
    assert not any(process.is_alive() for process in processes)
    assert nothing_is_left(world)


def test_a_ledger_that_does_not_answer_for_a_moment_ends_no_build(world: LabelledPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_arguments: object) -> None:
        raise psycopg.OperationalError("no answer")

    monkeypatch.setattr(RunLedger, "demand_running", silent)
    assert built(limited(world), world).state is RunState.DONE


def test_a_guard_looks_from_time_to_time() -> None:
    looks, now = [], [0.0]
    guard = BuildGuard(Path("/nowhere"), 1, lambda: looks.append(now[0]), lambda: now[0])
    for second in (0.0, 0.5, 0.9, 1.1, 1.2, 2.5):
        now[0] = second
        guard.check()
    assert looks == [0.0, 1.1, 2.5]


def test_a_guard_ends_what_it_watches(tmp_path: Path) -> None:
    now = [0.0]
    guard = BuildGuard(tmp_path, 10, lambda: None, lambda: now[0])
    items = guard.each([1, 2])
    assert next(items) == 1
    (tmp_path / "file").write_bytes(b"x" * 11)
    now[0] = 2.0
    with pytest.raises(BuildRefused, match=r"holds 11 bytes of scratch and files, more than builds.max_bytes of the profile, 10"):
        next(items)
