"""A warmed process that forks children to be killed: everything is imported and compiled, nothing is connected.

A suite has threads and connections that no child should inherit, and starting Python takes seconds. So one process of its own
does nothing but fork: it reads orders on its standard input and answers each on its standard output with what became of the
child.
"""

from __future__ import annotations

import importlib
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import IO, Any, Self

from ofp_platform.storage.crash_points import arm

LONGEST_SECONDS = 600.0
_SIZE = struct.Struct(">Q")


class ChildFailed(Exception):
    """A child ended in another way than by finishing or by the kill that was ordered; the text is its traceback."""


@dataclass(frozen=True)
class Kill:
    """When a child is to be killed: at a named point (its `passage`-th time), after that many seconds, or not at all."""

    point: str = ""
    passage: int = 1
    seconds: float | None = None


@dataclass(frozen=True)
class Order:
    """What a child does: `task` is `module:function`, called with `arguments`; both ways by pickle."""

    task: str
    arguments: tuple[Any, ...]
    kill: Kill


@dataclass(frozen=True)
class Death:
    """What became of a child. `by`: the named point, "time", or "" when it finished; `result`: what its task returned."""

    by: str
    seconds: float
    result: Any = None


class VictimPool:
    """The forking process, seen from outside. A context manager; one order at a time (a lane of drills has its own)."""

    def __init__(self, warming: str) -> None:
        """`warming` is `module:function`, called once before the first child: it imports and compiles, and connects nothing."""
        # imported, not run as a module: both sides must mean the same classes
        command = [sys.executable, "-c", f"from {__name__} import main; main({warming!r})"]
        environment = {name: value for name, value in os.environ.items() if name != "OFP_CRASH_POINT"}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def run(self, task: Callable[..., Any], *arguments: Any, kill: Kill = Kill()) -> Death:
        """Fork a child for a function of a module, and wait until it is dead.

        Raises:
            ChildFailed: it raised, or took longer than `LONGEST_SECONDS`.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        _send(self._process.stdin, Order(f"{task.__module__}:{task.__qualname__}", arguments, kill))
        answer = _receive(self._process.stdout)
        if isinstance(answer, Death):
            return answer
        raise ChildFailed(f"{task.__qualname__}{arguments} with {kill}: {answer or 'the victim_pool itself ended'}")


def seldom_hit(points: Sequence[str], kills: Counter[str]) -> str:
    """The point that killed least so far, the first of several: so each comes to its turn, also where some are missed."""
    return min(points, key=lambda point: kills[point])


def killed_until_done(
    victim_pool: VictimPool, task: Callable[..., Any], *arguments: Any, points: Sequence[str], most_passages: int, rng: Random
) -> Iterator[Counter[str]]:
    """Run a task in children that are killed, until one of them finishes before its own; after each, what killed how often.

    Every point comes first: a child that is to be killed by the clock may finish before, and then there is nothing left to do.
    """
    kills: Counter[str] = Counter()
    usual = 0.1  # seconds that a child lives
    while True:
        if sum(kills.values()) % 2 and all(kills[point] for point in points):
            kill = Kill(seconds=rng.uniform(0.0, 2 * usual))
        else:
            kill = Kill(seldom_hit(points, kills), rng.randint(1, most_passages))
        death = victim_pool.run(task, *arguments, kill=kill)
        if not death.by:
            return
        kills[death.by] += 1
        if death.by != "time":
            usual += 0.1 * (death.seconds - usual)
        yield kills


def _send(stream: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message)
    stream.write(_SIZE.pack(len(data)) + data)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    """The next message; None at the end."""
    head = stream.read(_SIZE.size)
    return pickle.loads(stream.read(*_SIZE.unpack(head))) if len(head) == _SIZE.size else None


def _named(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def _fork(order: Order, others: tuple[int, ...]) -> Death | str:
    reading, writing = os.pipe()
    began = time.monotonic()
    process = os.fork()
    if process == 0:
        for descriptor in (reading, *others):
            os.close(descriptor)
        _live(order, writing)
    os.close(writing)
    limit = LONGEST_SECONDS if order.kill.seconds is None else order.kill.seconds
    data, in_time = _read_until(reading, began + limit)
    if not in_time:
        os.kill(process, signal.SIGKILL)
        data += _read_until(reading, None)[0]
    os.close(reading)
    _, status = os.waitpid(process, 0)
    seconds = time.monotonic() - began
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        if in_time and order.kill.point:
            return Death(order.kill.point, seconds)
        if not in_time and order.kill.seconds is not None:
            return Death("time", seconds)
        return f"took longer than {limit:g} s" if not in_time else "was killed by somebody else"
    if status or not data:
        return data.decode() or f"ended with status {status}"
    return Death("", seconds, pickle.loads(data))  # also when it finished at the very moment of its kill


def _read_until(descriptor: int, deadline: float | None) -> tuple[bytes, bool]:
    """What the child writes, until it closes its end; False when the deadline came first."""
    parts = []
    while True:
        left = None if deadline is None else max(deadline - time.monotonic(), 0)
        if not select.select([descriptor], [], [], left)[0]:
            return b"".join(parts), False
        part = os.read(descriptor, 1 << 16)
        if not part:
            return b"".join(parts), True
        parts.append(part)


def _live(order: Order, writing: int) -> None:
    """The life of a child; it never returns."""
    status = 1
    try:
        arm(order.kill.point, order.kill.passage)
        data = pickle.dumps(_named(order.task)(*order.arguments))
        status = 0
    except BaseException:
        data = traceback.format_exc().encode()
    while data:
        data = data[os.write(writing, data) :]
    os._exit(status)


def main(warming: str) -> None:
    """Warm up, then serve orders until the input ends."""
    orders, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # what a child prints is no answer
    os.close(nothing)
    _named(warming)()
    with os.fdopen(orders, "rb") as reading, os.fdopen(answers, "wb") as writing:
        while (order := _receive(reading)) is not None:
            _send(writing, _fork(order, (orders, answers)))
