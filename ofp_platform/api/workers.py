"""The workers of `ofp serve`: processes that are started again when they end, later each time, and given up in the end."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, cast

from ofp_platform.vocabulary.background_tasks import EndedTasks

LOGGER = logging.getLogger("ofp.http")
STOP_SECONDS = 10
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class RespawnPolicy:
    """How a worker that ended is started again. Seconds.

    The pause doubles from `first_pause` to `longest_pause`. A worker that answered for `steady` seconds begins anew, and is told
    of no longer; one that ends `attempts` times in a row before that is given up.
    """

    first_pause: float = 0.5
    longest_pause: float = 30.0
    steady: float = 600.0
    attempts: int = 10

    def pause(self, ends: int) -> float:
        """Before the next start of a worker that ended so many times in a row."""
        return min(self.longest_pause, self.first_pause * 2.0 ** (ends - 1))


def _in_words(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        try:
            return signal.Signals(-exit_code).name
        except ValueError:
            return f"signal {-exit_code}"
    return f"exit code {exit_code}"


@dataclass(eq=False)
class _Worker:
    """One place for a process. `ends`: how often in a row it ended; `due`: when it is to be started again."""

    number: int
    process: BaseProcess | None = None
    ready: Connection | None = None
    ready_since: float | None = None
    ends: int = 0
    due: float | None = None

    @property
    def name(self) -> str:
        """As an operator is told."""
        return f"worker {self.number}"


@dataclass
class Workers:
    """So many processes of one function, `target(*arguments, sending)`, which sends anything when it answers.

    A worker that ends is told in `ended_tasks` until it is steady again. `clock` gives seconds, for pauses only.
    """

    count: int
    target: Callable[..., None]
    arguments: Sequence[Any]
    on_ready: Callable[[], None]
    ended_tasks: EndedTasks
    policy: RespawnPolicy = field(default_factory=RespawnPolicy)
    clock: Callable[[], float] = time.monotonic
    _is_stopping: bool = False
    _has_answered: bool = False
    _workers: list[_Worker] = field(default_factory=list)

    def run(self) -> bool:
        """Run them until a signal; whether that is how they ended. False too where one could not start the first time."""
        self._workers = [_Worker(number) for number in range(1, self.count + 1)]
        for worker in self._workers:
            self._start(worker)
        for number in _STOP_SIGNALS:
            signal.signal(number, lambda *_: self._stop())
        while not self._is_stopping and self._look():
            pass
        is_success = self._is_stopping
        self._stop()
        for worker in self._workers:
            self._join(worker)
        return is_success

    def _start(self, worker: _Worker) -> None:
        worker.due = None
        worker.ready, sending = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.Process(target=self.target, args=(*self.arguments, sending))
        process.start()
        sending.close()
        worker.process = process
        if self._is_stopping:  # the signal came meanwhile, and found no process
            process.terminate()

    def _stop(self) -> None:
        self._is_stopping = True
        for worker in self._workers:
            if worker.process is not None and worker.process.pid is not None and worker.process.exitcode is None:
                worker.process.terminate()

    def _join(self, worker: _Worker) -> None:
        if worker.process is None:
            return
        worker.process.join(2 * STOP_SECONDS)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()

    def _look(self) -> bool:
        """Wait for what happens next; whether there is any reason to go on."""
        now = self.clock()
        by_sentinel = {worker.process.sentinel: worker for worker in self._workers if worker.process is not None}
        by_pipe = {worker.ready.fileno(): worker for worker in self._workers if worker.ready is not None}
        times = [worker.due for worker in self._workers if worker.due is not None]
        times += [
            worker.ready_since + self.policy.steady for worker in self._workers if worker.ends and worker.ready_since is not None
        ]
        pipes = [worker.ready for worker in self._workers if worker.ready is not None]
        sources = wait([*by_sentinel, *pipes], max(0.0, min(times) - now) if times else None)
        for source in sources:
            if isinstance(source, Connection):
                self._take_ready(by_pipe[source.fileno()])
        for source in sources:
            if not isinstance(source, Connection) and not self._take_end(by_sentinel[cast(int, source)]):
                return False
        now = self.clock()
        for worker in self._workers:
            if worker.due is not None and worker.due <= now and not self._is_stopping:
                LOGGER.warning("%s is started again", worker.name)
                self._start(worker)
            elif worker.ends and worker.ready_since is not None and worker.ready_since + self.policy.steady <= now:
                worker.ends = 0
                self.ended_tasks.withdraw(worker.name)
        return any(worker.process is not None or worker.due is not None for worker in self._workers)

    def _take_ready(self, worker: _Worker) -> None:
        pipe, worker.ready = worker.ready, None
        assert pipe is not None
        try:
            pipe.recv()
        except EOFError:  # it ended before it answered: its sentinel says so
            return
        finally:
            pipe.close()
        worker.ready_since = self.clock()
        if not self._has_answered and all(other.ready_since is not None for other in self._workers):
            self._has_answered = True
            self.on_ready()

    def _take_end(self, worker: _Worker) -> bool:
        """Whether the others go on: not where one could not start in the first place, which the next try does not change."""
        process = worker.process
        assert process is not None
        process.join()
        worker.process = None
        if self._is_stopping:
            return False
        why = _in_words(process.exitcode)
        LOGGER.error("%s (process %s) ended: %s", worker.name, process.pid, why)
        if not self._has_answered and worker.ready_since is None:
            return False
        if worker.ready is not None:
            worker.ready.close()
            worker.ready = None
        worker.ready_since = None
        worker.ends += 1
        if process.pid is not None:
            self.ended_tasks.forget(process.pid)  # what ended in it ended with it
        if worker.ends > self.policy.attempts:
            LOGGER.critical("%s ended %s times in a row and is given up", worker.name, worker.ends)
            self.ended_tasks.warn(worker.name, "GIVEN_UP", why)
            return True
        self.ended_tasks.warn(worker.name, "ENDED", why)
        worker.due = self.clock() + self.policy.pause(worker.ends)
        return True
