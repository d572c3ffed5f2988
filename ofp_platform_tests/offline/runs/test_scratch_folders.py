"""Folders of unfinished builds: those of the living stay, those of the dead go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ofp_platform.offline.runs.builder import build
from ofp_platform.offline.runs.run_ledger import RunLedger
from ofp_platform.offline.runs.scratch_folders import DeadFolder, dead_folders, held_folder, passing_folder
from ofp_platform.storage.postgres import open_pool
from ofp_platform.vocabulary.offline.build_intent import request_id
from ofp_platform.vocabulary.offline.build_refusal import BuildReason
from ofp_platform.vocabulary.offline.build_run import RunState
from ofp_platform_tests.oracle.build_plans import STORE_DOWN, dataset_intent, plan_of
from ofp_platform_tests.oracle.labelled_plane import LabelledPlane

ROOT = Path(__file__).parents[3]
INTENT = dataset_intent()
KEY = request_id(INTENT)


@pytest.fixture
def ledger(dsn: str) -> Iterator[RunLedger]:
    with open_pool(dsn) as pool:
        yield RunLedger(pool)


def filled(scratch: Path, name: str) -> Path:
    folder = scratch / name
    folder.mkdir(parents=True)
    (folder / "spool").write_bytes(b"x" * 100)
    return folder


def names(folders: list[DeadFolder]) -> list[tuple[str, int, str]]:
    return [(folder.name, folder.bytes, folder.why) for folder in folders]


def test_a_dry_run_removes_nothing(ledger: RunLedger, tmp_path: Path) -> None:
    folder = filled(tmp_path, KEY)
    assert dead_folders(tmp_path, ledger, remove=True, unknown=False) == []
    for _ in range(2):
        assert names(dead_folders(tmp_path, ledger, remove=False)) == [(KEY, 100, "of no run of this ledger")]
        assert folder.exists()
    assert names(dead_folders(tmp_path, ledger, remove=True)) == [(KEY, 100, "of no run of this ledger")]
    assert list(tmp_path.iterdir()) == []
    assert dead_folders(tmp_path / "not there", ledger, remove=True) == []


def test_what_a_process_holds_stays(ledger: RunLedger, tmp_path: Path) -> None:
    folder = filled(tmp_path, KEY)
    program = (
        "import sys, pathlib, signal; from ofp_platform.offline.runs.scratch_folders import held_folder\n"
        f"with held_folder(pathlib.Path({str(tmp_path)!r}), {KEY!r}):\n"
        "    print('held', flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert dead_folders(tmp_path, ledger, remove=True) == []
        assert folder.exists()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert len(dead_folders(tmp_path, ledger, remove=True)) == 1
    assert not folder.exists()


def test_folders_that_are_none_of_a_build_stay(ledger: RunLedger, tmp_path: Path) -> None:
    filled(tmp_path, "notes")
    filled(tmp_path, "a" * 63)
    assert dead_folders(tmp_path, ledger, remove=True) == []
    assert len(list(tmp_path.iterdir())) == 2


def test_files_that_wait_to_be_published_stay_until_the_run_is_cancelled(ledger: RunLedger, tmp_path: Path) -> None:
    ledger.submit(INTENT)
    folder = filled(tmp_path, KEY)
    with ledger.claim(KEY) as lease:
        assert lease is not None
        lease.store_plan(plan_of(INTENT))
        lease.publish_pending(STORE_DOWN)
    assert dead_folders(tmp_path, ledger, remove=True) == []
    assert folder.exists()
    ledger.cancel(KEY, "me")
    assert names(dead_folders(tmp_path, ledger, remove=True)) == [(KEY, 100, "CANCELLED")]


def test_a_held_folder_is_waited_for_not_shared(ledger: RunLedger, tmp_path: Path) -> None:
    with held_folder(tmp_path, KEY):
        filled(tmp_path, KEY)
        assert dead_folders(tmp_path, ledger, remove=True) == []
    with held_folder(tmp_path, KEY):
        assert (tmp_path / KEY).exists()
    with passing_folder(tmp_path) as folder:
        assert list(folder.iterdir()) == []
        assert [dead.name for dead in dead_folders(tmp_path, ledger, remove=True)] == [KEY]
    assert list(tmp_path.iterdir()) == []
    filled(tmp_path, "parity-1234")
    assert names(dead_folders(tmp_path, ledger, remove=True)) == [("parity-1234", 100, "its process is gone")]


def test_a_folder_that_cannot_be_held_is_said_to_be(dsn: str, tmp_path: Path) -> None:
    world = LabelledPlane.prepare(dsn, tmp_path)
    context = world.build_context
    context.scratch.write_text("a file")
    run = build(context, context.ledger.submit(world.intent()).run_key)
    assert run.refusal is not None
    assert run.refusal.reason is BuildReason.STORE_UNAVAILABLE
    assert "the scratch folder" in run.refusal.message
    world.plane.close()


def test_the_next_build_removes_what_a_killed_one_left(dsn: str, tmp_path: Path) -> None:
    world = LabelledPlane.prepare(dsn, tmp_path)
    context = world.build_context
    killed_key = context.ledger.submit(world.intent()).run_key
    command = [sys.executable, "-m", "ofp_platform_tests.oracle.builder_process", dsn, str(world.folder), killed_key]
    environment = {**os.environ, "OFP_CRASH_POINT": "build.replayed"}
    killed = subprocess.run(command, cwd=ROOT, env=environment, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    folder = context.run_folder(killed_key)
    assert list(folder.rglob("*"))
    assert names(dead_folders(context.scratch, context.ledger, remove=False))[0][2] == "its builder is gone"
    assert build(context, context.ledger.submit(world.intent("another")).run_key).state is RunState.DONE
    assert list(context.scratch.iterdir()) == []
    world.plane.close()
