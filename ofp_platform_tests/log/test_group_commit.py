"""Group commit: who is written together, and what each is told when a write fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from ofp_platform.log.group_commit import GROUP_BYTES, WRITERS, GroupCommit
from ofp_platform.log.port import LogUnavailable


class Store:
    """Items of each write; the first `WRITERS` of them wait until `gate` opens. An item that is an exception is raised."""

    def __init__(self) -> None:
        self.writes: list[list[object]] = []
        self.gate = threading.Event()

    def write(self, items: Sequence[object]) -> list[str]:
        self.writes.append(list(items))
        if len(self.writes) <= WRITERS:
            assert self.gate.wait(30)
        for item in items:
            if isinstance(item, BaseException):
                raise item
        return [f"stored {item}" for item in items]


def until_waiting(commits: GroupCommit[object, str], count: int) -> None:
    deadline = time.monotonic() + 30
    while len(commits._waiting) != count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@contextmanager
def behind_busy_writers(store: Store, items: Sequence[tuple[object, int]]) -> Iterator[list[Future[str]]]:
    """Each item of its own thread, in that order, behind as many writes as there may be at once; at the end all go on."""
    commits: GroupCommit[object, str] = GroupCommit(store.write)
    with ThreadPoolExecutor(WRITERS + len(items)) as threads:
        busy = [threads.submit(commits.write, f"busy {number}", 1) for number in range(WRITERS)]
        deadline = time.monotonic() + 30
        while len(store.writes) != WRITERS:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        futures = []
        for count, (item, size) in enumerate(items, 1):
            futures.append(threads.submit(commits.write, item, size))
            until_waiting(commits, count)
        store.gate.set()
        assert [future.result(30) for future in busy] == [f"stored busy {number}" for number in range(WRITERS)]
        yield futures
    assert commits._writers == 0
    assert commits.write("later", 1) == "stored later"


def test_alone_it_is_written_at_once() -> None:
    store = Store()
    store.gate.set()
    commits: GroupCommit[object, str] = GroupCommit(store.write)
    assert [commits.write(number, 1) for number in range(3)] == ["stored 0", "stored 1", "stored 2"]
    assert store.writes == [[0], [1], [2]]


def test_those_who_wait_are_written_together_in_their_order() -> None:
    store = Store()
    with behind_busy_writers(store, [(number, 1) for number in range(9)]) as futures:
        assert [future.result(30) for future in futures] == [f"stored {number}" for number in range(9)]
    assert store.writes[WRITERS:-1] == [list(range(9))]


def test_a_group_has_a_size() -> None:
    store = Store()
    sizes = [GROUP_BYTES // 2, GROUP_BYTES // 2, 1, GROUP_BYTES]
    with behind_busy_writers(store, list(enumerate(sizes))) as futures:
        assert [future.result(30) for future in futures] == [f"stored {number}" for number in range(4)]
    assert sorted(store.writes[WRITERS:-1]) == [[0, 1], [2], [3]]


def test_what_is_larger_than_a_group_waits_for_nobody() -> None:
    store = Store()
    commits: GroupCommit[object, str] = GroupCommit(store.write)
    with ThreadPoolExecutor(WRITERS) as threads:
        busy = [threads.submit(commits.write, number, 1) for number in range(WRITERS)]
        while len(store.writes) != WRITERS:
            time.sleep(0.001)
        assert commits.write("large", GROUP_BYTES + 1) == "stored large"
        assert not any(future.done() for future in busy)
        store.gate.set()


def test_one_that_cannot_be_stored_fails_no_other() -> None:
    store = Store()
    error = ValueError("not this one")
    with behind_busy_writers(store, [("a", 1), (error, 1), ("b", 1)]) as futures:
        assert (futures[0].result(30), futures[2].result(30)) == ("stored a", "stored b")
        with pytest.raises(ValueError, match="not this one"):
            futures[1].result(30)
    assert store.writes[WRITERS] == ["a", error, "b"]
    assert sorted(map(str, store.writes[WRITERS + 1 : -1])) == sorted(map(str, [["a"], [error], ["b"]]))


def test_an_unknown_outcome_is_that_of_all_and_nothing_is_written_twice() -> None:
    store = Store()
    with behind_busy_writers(store, [("a", 1), (LogUnavailable("cut off"), 1), ("b", 1)]) as futures:
        for future in futures:
            with pytest.raises(LogUnavailable, match="cut off"):
                future.result(30)
    assert len(store.writes) == WRITERS + 2


def test_an_interrupted_writer_leaves_nobody_behind() -> None:
    store = Store()
    with behind_busy_writers(store, [(KeyboardInterrupt(), 1), ("b", 1)]) as futures:
        with pytest.raises(KeyboardInterrupt):
            futures[0].result(30)
        with pytest.raises(LogUnavailable, match="interrupted"):
            futures[1].result(30)
