"""`ofp intent`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.offline.runs.run_ledger import RunLedger
from ofp_platform.online.plane import Plane
from ofp_platform.storage.postgres import open_pool
from ofp_platform_tests.cli.program import Ofp, Outcome, call
from ofp_platform_tests.oracle.build_plans import LEAK, dataset_intent, plan_of
from ofp_platform_tests.oracle.intents import DATASET, changed
from ofp_platform_tests.oracle.resolvable_plane import ResolvablePlane
from ofp_platform_tests.oracle.simulated_log import profile, write_profile


def written(folder: Path, **changes: Any) -> str:
    path = folder / "intent.json"
    path.write_text(json.dumps(changed(DATASET, **changes)), encoding="utf-8")
    return str(path)


@pytest.fixture
def on_database(dsn: str, tmp_path: Path) -> Ofp:
    """The program on an empty plane of the simulated payments' profile."""
    source = str(write_profile(tmp_path))

    def run(*arguments: str) -> Outcome:
        return call(*arguments, OFP_HOME=str(tmp_path / "home"), OFP_DATABASE_URL=dsn, OFP_PROFILE=source)

    return run


def test_submit_list_show(on_database: Ofp, tmp_path: Path, dsn: str) -> None:
    first = on_database("intent", "submit", written(tmp_path))
    assert first.out.split()[1:] == ["QUEUED", "dataset_build", "fraud_by_payment"]
    assert on_database("intent", "submit", written(tmp_path, note="again")).out == first.out
    (only,) = json.loads(on_database("intent", "list", "--json").out)
    assert only == json.loads(on_database("intent", "submit", written(tmp_path), "--json").out)
    (line,) = on_database("intent", "list").out.splitlines()
    listed = [only["run_key"][:12], "QUEUED", f"{only['submitted_at_utc'][:19]}Z", "dataset_build fraud_by_payment"]
    assert line.split("  ") == listed
    assert on_database("intent", "list", "--state", "DONE").out == ""
    assert "there is no state" in on_database("intent", "list", "--state", "ASLEEP").refused()
    key = first.out.split()[0]
    assert "attempts 0 of 3" in on_database("intent", "show", key[:8]).out
    with open_pool(dsn) as pool, RunLedger(pool).claim(key) as lease:
        assert lease is not None
        lease.store_plan(plan_of(dataset_intent()))
        lease.fail(LEAK)
    shown = on_database("intent", "show", key).out
    assert "FAILED dataset_build fraud_by_payment: LEAKAGE_DETECTED (label): a label of tomorrow" in shown
    assert "replay 0000 from 0 to 10" in shown.replace("its start", "0")
    assert "receipt of refusal, attempt 1" in shown
    whole = json.loads(on_database("intent", "show", key, "--json").out)
    assert (whole["kind"], whole["receipts"][0]["stage"]) == ("ofs_build_run", "refusal")
    assert on_database("intent", "retry", key).out == first.out
    assert "no build run begins" in on_database("intent", "show", "0" * 8).refused()


def test_cancel(on_database: Ofp, tmp_path: Path, dsn: str) -> None:
    key = on_database("intent", "submit", written(tmp_path)).out.split()[0]
    cancelled = on_database("intent", "cancel", key[:8], "--reason", "too large", "--actor", "ann").out
    assert "FAILED dataset_build fraud_by_payment: CANCELLED: cancelled by ann: too large" in cancelled
    assert on_database("intent", "cancel", key).out == cancelled
    on_database("intent", "retry", key)
    with open_pool(dsn) as pool, RunLedger(pool).claim(key) as lease:
        assert lease is not None
        lease.store_plan(plan_of(dataset_intent()))
        lease.succeed({"rows": 1})
    assert "what it published stays" in on_database("intent", "cancel", key).refused()


def test_prune_lists_and_removes(on_database: Ofp, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "builds" / ("7" * 64)
    folder.mkdir(parents=True)
    (folder / "spool").write_bytes(b"x" * 1_234)
    on_database("intent", "list")
    listed = on_database("build", "prune").out
    assert listed == f"{'7' * 12}  1,234 bytes\n    of no run of this ledger\n1 folders, 1,234 bytes to remove with --apply\n"
    assert folder.exists()
    assert on_database("build", "prune", "--apply").out == listed.replace("to remove with --apply", "removed")
    assert not folder.exists()
    assert on_database("build", "prune").out == "0 folders, 0 bytes to remove with --apply\n"


def test_check_resolves_and_builds_nothing(on_database: Ofp, tmp_path: Path, dsn: str) -> None:
    with Plane.open(profile(tmp_path), dsn) as plane:
        ResolvablePlane.prepare(plane)
    said = on_database("intent", "check", written(tmp_path)).out
    for line in ("request ", "dataset identity ", "pack card_payments revision 1", "label fraud as of", "parity anchors 1"):
        assert line in said
    plan = json.loads(on_database("intent", "check", written(tmp_path), "--json").out)
    assert plan["kind"] == "ofs_build_plan"
    assert on_database("intent", "list").out == ""
    wrong = written(tmp_path, run_facts_ref="facts/latest")
    assert "RUN_FACTS_UNAVAILABLE (run_facts_ref)" in on_database("intent", "check", wrong).refused()


def test_what_is_wrong_is_told_with_its_field(ofp: Ofp, tmp_path: Path) -> None:
    for command in ("check", "submit"):
        said = ofp("intent", command, written(tmp_path, purpose="fun")).refused()
        assert "INVALID_INTENT (purpose)" in said
        assert "INVALID_INTENT: the file cannot be read" in ofp("intent", command, str(tmp_path / "none")).refused()
