"""Background tasks: whatever ends one of them, it is known by name, with why."""

from __future__ import annotations

import ast
import asyncio
import threading
from pathlib import Path

import pytest

import ofp_platform
from ofp_platform.vocabulary.background_tasks import BackgroundTasks, EndedTask, EndedTasks

PACKAGE = Path(ofp_platform.__file__).parent
# a result or an end that somebody waits for, in the same function or object
AWAITED = {
    "actions/webhook.py": "cuts a connection in the end; the request that started it takes it back",
    "cli/demo/webhook_receiver.py": "whoever serves joins it when it stops; a receiver that ended gives no answer",
    "api/decision_waits.py": "whoever waits is told of its end and of its fault; it ends when nobody waits",
    "api/handshakes.py": "a handshake, which ends in time; a stop waits for it",
    "api/http_connection.py": "an answer, whose end its connection is told; a stop waits for it",
    "api/workers.py": "the process that started the workers waits for the end of each",
    "cli/services/tls_front.py": "a connection, whose ends see each other close; the front joins it when it stops",
    "client/producer.py": "close joins it; where it ends before, each future and whoever sends is told",
    "decisions/decider.py": "a task group",
    "decisions/loop.py": "a task group",
    "decisions/replaying.py": "ends the process with its parent; the parent sees each process that ends before its work",
    "offline/replay/archived_fold.py": "ends the process with its parent; the parent reads the pipes of its children",
    "offline/runs/builder.py": "short: reads what the first call of a loop would read else, and raise of",
    "online/ranges/shard_driver.py": "the driver joins it, and raises its error",
    "online/service/projection_monitor.py": "a reading, awaited by the monitor",
    "online/serving/async_reader.py": "short: a statement, whose end each question is told; a cache that fails is emptied",
}


async def quiet(condition: asyncio.Event) -> None:
    await condition.wait()


async def fails(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [ValueError("a secret"), KeyError("x"), RecursionError(), asyncio.CancelledError()])
async def test_a_task_that_ends_is_told(error: BaseException) -> None:
    told: list[EndedTask] = []
    tasks = BackgroundTasks(on_end=told.append)
    tasks.start("quiet", quiet(asyncio.Event()))
    tasks.start("broken", fails(error))
    while not told:
        await asyncio.sleep(0)
    assert told == tasks.ended.own == [EndedTask("broken", type(error).__name__)]
    assert told[0].reason == f"TASK_ENDED:broken:{type(error).__name__}"
    assert tasks.running() == {"quiet": True, "broken": False}
    await tasks.stop("quiet", "broken", "never started")
    assert tasks.ended.own == told


async def test_a_task_that_returns_is_told_and_one_that_is_stopped_is_not() -> None:
    tasks = BackgroundTasks()
    returns = asyncio.Event()
    tasks.start("returns", quiet(returns))
    tasks.start("stopped", quiet(asyncio.Event()))
    await tasks.stop("stopped")
    assert tasks.ended.own == []
    returns.set()
    while not tasks.ended.own:
        await asyncio.sleep(0)
    assert tasks.ended.own == [EndedTask("returns", "it returned")]


@pytest.mark.parametrize("error", [None, ValueError("a secret"), SystemExit(1)])
def test_a_thread_that_ends_is_told(error: BaseException | None) -> None:
    def work(_stop: threading.Event) -> None:
        if error is not None:
            raise error

    tasks = BackgroundTasks()
    tasks.start_thread("worker", work, threading.Event()).join()
    assert [task.why for task in tasks.ended.own] == ["it returned" if error is None else type(error).__name__]
    stop = threading.Event()
    stopped = BackgroundTasks()

    def waits(stop: threading.Event) -> None:
        stop.wait()

    thread = stopped.start_thread("worker", waits, stop)
    stop.set()
    thread.join()
    assert stopped.ended.own == []


def test_processes_that_share_a_folder_know_of_each_other(tmp_path: Path) -> None:
    one, other = EndedTasks(tmp_path), EndedTasks(tmp_path)
    one.report(EndedTask("commit listener", "ValueError"))
    assert other.own == []
    assert other.all() == one.all() == [EndedTask("commit listener", "ValueError")]


def test_every_task_and_thread_is_watched_or_awaited() -> None:
    starts: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                if name in ("Thread", "Process", "create_task", "ensure_future", "Timer"):
                    starts.add(path.relative_to(PACKAGE).as_posix())
    assert starts - {"vocabulary/background_tasks.py"} == set(AWAITED)
