"""Contenders: processes that do the same thing at the same moment, and the stores that they contend at."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing.synchronize import Barrier
from types import TracebackType
from typing import Any, Self, TypeVar

import obstore

from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool, open_pool

T = TypeVar("T")
WAIT_SECONDS = 60.0
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What only the S3 servers of these suites accept."""
_barrier: Barrier | None = None


class Contenders:
    """`count` processes, started once and kept: each race begins in all of them together. A context manager."""

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.count = count
        self._pool = ProcessPoolExecutor(count, context, _enter, (context.Barrier(count),))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown()

    def race(self, function: Callable[..., T], arguments: Sequence[tuple[Any, ...]]) -> list[T]:
        """What `function` returns for each tuple of arguments, one contender each; what it raises is raised here.

        With fewer tuples than contenders the others only come to the start.
        """
        if len(arguments) > self.count:
            raise ValueError(f"{len(arguments)} tuples of arguments for {self.count} contenders")
        futures = [self._pool.submit(_at_once, function, given) for given in arguments]
        others = [self._pool.submit(_at_once, _nothing, ()) for _ in range(self.count - len(arguments))]
        for other in others:
            other.result()
        return [future.result() for future in futures]


class OverwritingStore(ObjectStore):
    """The guard taken away: a plain put, which replaces what is there and tells every writer that it was the first."""

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Not if absent."""
        obstore.put(self._store, path, data, mode="overwrite", use_multipart=False)
        return True


def meet() -> None:
    """Wait until every contender is here."""
    if _barrier is None:
        raise RuntimeError("this is no contender's process")
    _barrier.wait(WAIT_SECONDS)


@cache
def pool_of(dsn: str) -> Pool:
    """This process's pool of a database, kept from race to race."""
    return open_pool(dsn, max_size=4)


def store_of(url: str, endpoint: str | None, guarded: bool) -> ObjectStore:
    """A store as a process that has just started has it."""
    return (ObjectStore if guarded else OverwritingStore)(url, endpoint=endpoint)


def _enter(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier
    os.environ.update(CREDENTIALS)


def _nothing() -> None:
    """Come to the start and leave."""


def _at_once(function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    try:
        meet()
    except threading.BrokenBarrierError:
        raise RuntimeError("another contender did not come") from None
    return function(*arguments)
