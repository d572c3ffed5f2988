"""Group commit: items of several threads written together, where they would otherwise wait for each other's commit.

A thread that comes while fewer writes than may be are under way writes at once. Others queue, and the write that ends next
hands all of them, as far as they fit, to the first of them: one commit, one round trip and one notice for the whole group.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ofp_platform.log.port import LogUnavailable

WRITERS = 3
"""Groups under way at once: one is formed while others commit. Measured with 16 threads: 1 to 4 writers, three are best."""
GROUP_BYTES = 4_000_000
Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


@dataclass(eq=False)
class _Member(Generic[Item, Outcome]):
    item: Item
    size: int
    turn: threading.Event = field(default_factory=threading.Event)
    group: list[_Member[Item, Outcome]] | None = None
    """What this member has to write; None: nothing, as long as it waits or where another one writes it."""
    outcome: Outcome | None = None
    outage: LogUnavailable | None = None


class GroupCommit(Generic[Item, Outcome]):
    """Writes items in groups. Safe to share between threads."""

    def __init__(
        self, write: Callable[[Sequence[Item]], Sequence[Outcome]], writers: int = WRITERS, small_bytes: int = 0
    ) -> None:
        """`write` stores all items of a group or none, and gives the outcome of each; it may run in that many threads. An item of
        fewer than `small_bytes` waits for the write that is under way: a commit for each would be most of its price.
        """
        self._write = write
        self._small_bytes = small_bytes
        self._most_writers = writers
        self._lock = threading.Lock()
        self._waiting: deque[_Member[Item, Outcome]] = deque()
        self._writers = 0

    def write(self, item: Item, size: int) -> Outcome:
        """The outcome of the item, once it is stored; `size` in bytes. What is larger than a group is written alone.

        Raises:
            LogUnavailable: the write of the group failed so; whether the item is stored is known as little as for an item alone.
            Exception: what `write` raises for this item alone.
        """
        if size > GROUP_BYTES:
            return self._alone(item)
        member: _Member[Item, Outcome] = _Member(item, size)
        with self._lock:
            self._waiting.append(member)
            if self._writers < (1 if size < self._small_bytes else self._most_writers):
                self._writers += 1
                self._appoint()
        try:
            member.turn.wait()
        finally:
            # interrupted or not: others depend on a writer, and nobody writes what was given up in time
            with self._lock:
                if not member.turn.is_set() and member in self._waiting:
                    self._waiting.remove(member)
            if member.group is not None:
                self._write_group(member.group)
        if member.outage is not None:
            raise type(member.outage)(str(member.outage)) from member.outage  # an error of its own for each thread
        return self._alone(item) if member.outcome is None else member.outcome

    def _appoint(self) -> None:
        """Make the first who waits the writer of a group. Under the lock."""
        group, size = [self._waiting.popleft()], 0
        size = group[0].size
        while self._waiting and size + self._waiting[0].size <= GROUP_BYTES:
            group.append(self._waiting.popleft())
            size += group[-1].size
        group[0].group = group
        group[0].turn.set()

    def _write_group(self, group: list[_Member[Item, Outcome]]) -> None:
        try:
            for member, outcome in zip(group, self._write([member.item for member in group]), strict=True):
                member.outcome = outcome
        except LogUnavailable as outage:
            for member in group:
                member.outage = outage
        except Exception:
            # nothing is stored, and one of them may be why: each finds out for itself
            if len(group) == 1:
                raise
        except BaseException as interruption:
            for member in group:
                member.outage = LogUnavailable(f"the write was interrupted: {type(interruption).__name__}")
            raise
        finally:
            with self._lock:
                if self._waiting:
                    self._appoint()
                else:
                    self._writers -= 1
            for member in group[1:]:
                member.turn.set()

    def _alone(self, item: Item) -> Outcome:
        (outcome,) = self._write([item])
        return outcome
