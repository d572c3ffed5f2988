"""Background tasks: what is to run as long as its process. One that ends unasked is known by name, with why, to all who ask.

A loop that waits out outages has a list of what it expects, and dies of the next error; nobody looks at the result of a task or
thread then. So none is started but through here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)
ENDED = "TASK_ENDED"


@dataclass(frozen=True, order=True)
class EndedTask:
    """A background task that ended unasked. `why` is the type of its error; its text may hold what is no operator's."""

    name: str
    why: str

    @property
    def reason(self) -> str:
        """As a reason of the posture."""
        return f"{ENDED}:{self.name}:{self.why}"


@dataclass
class EndedTasks:
    """The background tasks of this process that ended unasked and, with a `folder`, those of all processes that share it.

    Beside them, warnings that pass. Safe for threads.
    """

    folder: Path | None = None
    _own: set[EndedTask] = field(default_factory=set)

    def report(self, task: EndedTask) -> None:
        """Note it for good; for the other processes, too."""
        self._own.add(task)
        if self.folder is not None:
            name = f"{os.getpid()}-{task.name.replace(' ', '-')}"
            self._write(f"{name}.json", [task.name, task.why])

    def forget(self, process_id: int) -> None:
        """Take back what a process reported that is gone itself, and was replaced."""
        if self.folder is not None:
            for path in self.folder.glob(f"{process_id}-*.json"):
                path.unlink(missing_ok=True)

    def warn(self, name: str, state: str, why: str) -> None:
        """Tell all processes of something that passes, until it is withdrawn. `name` and `state` are no secrets, nor is `why`."""
        if self.folder is not None:
            self._write(f"{name.replace(' ', '-')}.warning", [name, state, why])

    def withdraw(self, name: str) -> None:
        """Take a warning back."""
        if self.folder is not None:
            (self.folder / f"{name.replace(' ', '-')}.warning").unlink(missing_ok=True)

    def warnings(self) -> list[str]:
        """The warnings that stand, as reasons of the posture."""
        if self.folder is None:
            return []
        texts = []
        for path in sorted(self.folder.glob("*.warning")):
            with suppress(FileNotFoundError):  # withdrawn meanwhile
                name, state, why = json.loads(path.read_text(encoding="utf-8"))
                texts.append(f"{name.replace(' ', '_').upper()}_{state}:{why.replace(' ', '_')}")
        return texts

    def _write(self, name: str, content: list[str]) -> None:
        assert self.folder is not None
        partial = self.folder / f"{name}.partial"
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.rename(self.folder / name)

    @property
    def own(self) -> list[EndedTask]:
        """Those of this process; looks at no file."""
        return sorted(self._own)

    def all(self) -> list[EndedTask]:
        """Those of all processes."""
        if self.folder is None:
            return self.own
        others = set()
        for path in self.folder.glob("*.json"):
            with suppress(FileNotFoundError):  # its process is gone meanwhile, and was replaced
                others.add(EndedTask(*json.loads(path.read_text(encoding="utf-8"))))
        return sorted(self._own | others)


class BackgroundTasks:
    """Starts tasks of the running event loop and threads, and watches that they run until they are told to stop.

    `on_end` is called for one that ended unasked, in its loop or thread, behind `ended.report`.
    """

    def __init__(self, ended: EndedTasks | None = None, on_end: Callable[[EndedTask], None] = lambda _task: None) -> None:
        self.ended = ended or EndedTasks()
        self._on_end = on_end
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopped: set[str] = set()

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task; `name` tells it to an operator."""
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._on_task_end(name, done))

    def start_thread(self, name: str, work: Callable[[threading.Event], None], stop: threading.Event) -> threading.Thread:
        """Run `work(stop)` in a thread, until `stop` is set. The caller joins it."""

        def run() -> None:
            error: BaseException | None = None
            try:
                work(stop)
            except BaseException as raised:
                error = raised
            if not stop.is_set() or error is not None:
                self._tell(name, error)

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    def running(self) -> Mapping[str, bool]:
        """The tasks by name, and whether each still runs."""
        return {name: not task.done() for name, task in self._tasks.items()}

    async def stop(self, *names: str) -> None:
        """Cancel these tasks, and return when they are gone. Those that never started, or ended before, are none."""
        tasks = [self._tasks[name] for name in names if name in self._tasks]
        self._stopped.update(names)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _on_task_end(self, name: str, task: asyncio.Task[None]) -> None:
        if name in self._stopped:
            return
        error = asyncio.CancelledError("somebody cancelled it") if task.cancelled() else task.exception()
        self._tell(name, error)

    def _tell(self, name: str, error: BaseException | None) -> None:
        ended_task = EndedTask(name, "it returned" if error is None else type(error).__name__)
        logger.critical("the background task %r ended: %s", name, ended_task.why, exc_info=error)
        self.ended.report(ended_task)
        self._on_end(ended_task)
