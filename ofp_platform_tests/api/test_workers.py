"""Workers that end: told, started again, given up; the others go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from ofp_platform.api.workers import RespawnPolicy, Workers
from ofp_platform.vocabulary.background_tasks import EndedTask, EndedTasks

ROOT = Path(__file__).parents[2]
QUICK = RespawnPolicy(first_pause=0.01, longest_pause=0.02, attempts=3)


def test_pauses_double_up_to_a_bound() -> None:
    policy = RespawnPolicy(first_pause=0.5, longest_pause=30)
    assert [policy.pause(ends) for ends in (1, 2, 3, 7, 8, 1_000)] == [0.5, 1, 2, 30, 30, 30]


def work(kind: str, starts: Path, sending: Connection) -> None:
    """One worker; `starts` has a line for each that was started."""
    with starts.open("a") as file:
        file.write(f"{os.getpid()}\n")
    number = starts.read_text().splitlines().index(str(os.getpid())) + 1
    if kind == "never" or (kind == "not again" and number > 2):
        sys.exit(3)
    sending.send(None)
    if (kind, number) in (("one dies", 1), ("not again", 2)):  # it ends when all have answered
        while not (starts.parent / "ready").exists():
            time.sleep(0.01)
    if kind == "one dies" and number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "dies at once" and number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "not again":
        signal.sigwait([signal.SIGUSR1]) if number == 1 else sys.exit(4)
    signal.pause()


def run(kind: str, folder: Path) -> bool:
    """Two workers of a kind; what `Workers.run` tells."""
    starts, ended = folder / "starts", EndedTasks(folder)

    def ready() -> None:
        print("ready", flush=True)
        (folder / "ready").touch()

    return Workers(2, work, (kind, starts), ready, ended, QUICK).run()


def _started(kind: str, folder: Path) -> subprocess.Popen[str]:
    program = (
        f"import sys; from pathlib import Path; from {__name__} import run; sys.exit(not run({kind!r}, Path({str(folder)!r})))"
    )
    return subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _pids(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "starts").read_text().split()]


def test_workers_that_cannot_start_end_all(tmp_path: Path) -> None:
    process = _started("never", tmp_path)
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 1
    assert len(_pids(tmp_path)) <= 2
    assert EndedTasks(tmp_path).warnings() == []


def test_a_worker_that_ends_again_and_again_is_given_up_and_the_other_serves_on(tmp_path: Path) -> None:
    process = _started("not again", tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    while not any("GIVEN_UP" in warning for warning in EndedTasks(tmp_path).warnings()):
        assert process.poll() is None
    assert EndedTasks(tmp_path).warnings() in (["WORKER_1_GIVEN_UP:exit_code_3"], ["WORKER_2_GIVEN_UP:exit_code_3"])
    assert len(_pids(tmp_path)) == 2 + QUICK.attempts
    os.kill(_pids(tmp_path)[0], 0)
    os.kill(_pids(tmp_path)[0], signal.SIGKILL)  # the last one
    process.communicate(timeout=60)
    assert process.returncode == 1


def test_what_a_gone_process_reported_is_forgotten(tmp_path: Path) -> None:
    ended = EndedTasks(tmp_path)
    ended.report(EndedTask("monitor", "KeyError"))
    ended.warn("worker 1", "ENDED", "SIGKILL")
    assert EndedTasks(tmp_path).all() == [EndedTask("monitor", "KeyError")]
    assert EndedTasks(tmp_path).warnings() == ["WORKER_1_ENDED:SIGKILL"]
    EndedTasks(tmp_path).forget(os.getpid())
    EndedTasks(tmp_path).withdraw("worker 1")
    assert EndedTasks(tmp_path).all() == []
    assert EndedTasks(tmp_path).warnings() == []
    assert EndedTasks().warnings() == []


def test_one_that_ends_before_all_have_answered_is_started_again(tmp_path: Path) -> None:
    process = _started("dies at once", tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    while len(_pids(tmp_path)) < 3:
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all(number: signal.Signals, tmp_path: Path) -> None:
    process = _started("one dies", tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    while len(_pids(tmp_path)) < 3:
        assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 0
