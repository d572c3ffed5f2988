"""Where events of the loop are at which time: seen by a process that looks at the heads of streams after each notice, and matched
with the events when all is over.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import orjson
import psycopg

from ofp_platform.log.port import EventLog
from ofp_platform.online.plane import Plane
from ofp_platform.storage.notices import LOG_CHANNEL
from ofp_platform.vocabulary.loop.action import ACTION_INTENT, ACTION_OUTCOME
from ofp_platform.vocabulary.loop.audit import head_path
from ofp_platform.vocabulary.loop.decision_record import DECISION

_LOOK_SECONDS, _JOIN_SECONDS = 0.2, 30.0
_HEAD = "SELECT next_offset FROM ofp.log_head WHERE stream_name = %s"  # of decisions: one partition
_LEAVES = "SELECT subject, leaf_index FROM ofp.audit_leaf WHERE leaf_kind = 'decision'"
_HEADS = "SELECT tree_size FROM ofp.audit_head ORDER BY tree_size"
Sight = list[tuple[float, int]]
"""Times of the performance counter, and up to where the stream of decisions was visible then."""


def watch(dsn: str, stream_name: str, channel: Connection, stop: Any) -> None:
    """Send what was seen of the head of a stream, once `stop` is set."""
    sight: Sight = []
    with psycopg.connect(dsn, autocommit=True) as listening, psycopg.connect(dsn, autocommit=True) as reading:
        listening.execute(f"LISTEN {LOG_CHANNEL}")
        channel.send(None)
        while not stop.is_set():
            for notice in listening.notifies(timeout=_LOOK_SECONDS, stop_after=1):
                if notice.payload == stream_name:
                    ((head,),) = reading.execute(_HEAD, (stream_name,)).fetchall()
                    sight.append((time.perf_counter(), head))
        ((head,),) = reading.execute(_HEAD, (stream_name,)).fetchall()
        sight.append((time.perf_counter(), head))
    channel.send(sight)


@contextmanager
def watching(dsn: str, stream_name: str) -> Iterator[Sight]:
    """Inside the context a process watches; the list is filled behind it."""
    context = get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    stop, sight = context.Event(), Sight()
    watcher = context.Process(target=watch, args=(dsn, stream_name, sending, stop), daemon=True)
    watcher.start()
    sending.close()  # whoever waits for a watcher that died is told so
    receiving.recv()
    try:
        yield sight
    finally:
        stop.set()
    sight.extend(receiving.recv())
    watcher.join(_JOIN_SECONDS)


@dataclass(frozen=True)
class Stages:
    """When each stage of an event was over, by its id; performance counter. An event that is not in one never came there."""

    decided: Mapping[str, float]
    acted: Mapping[str, float]
    wanted: Mapping[str, int]
    audited: Mapping[str, float]

    def latencies(self, stage: str, due: Mapping[str, float]) -> tuple[list[float], int]:
        """Milliseconds from when each event was due, ascending, and how many never came there. Of actions: of events that some
        are wanted for, until the last of them.
        """
        times: Mapping[str, float] = getattr(self, stage)
        expected_ids = [event_id for event_id in due if stage != "acted" or event_id in self.wanted]
        took = sorted((times[event_id] - due[event_id]) * 1e3 for event_id in expected_ids if event_id in times)
        return took, len(expected_ids) - len(took)


def stages(plane: Plane, sight: Sight, objects_folder: Path) -> Stages:
    """Match what was seen with what stands in the stream of decisions and in the audit log."""
    ends = [head for _, head in sight]

    def seen_at(offset: int) -> float | None:
        place = bisect_right(ends, offset)
        return sight[place][0] if place < len(sight) else None

    decided: dict[str, float] = {}
    event_of: dict[str, str] = {}
    origin_of: dict[str, str] = {}
    wanted: dict[str, int] = {}
    done: dict[str, list[float]] = {}
    for event_type, offset, payload in _messages(plane.decisions_log(create=False)):
        at = seen_at(offset)
        if event_type == DECISION:
            event_of[payload["decision_id"]] = payload["event_id"]
            if at is not None:
                decided[payload["event_id"]] = at
        elif event_type == ACTION_INTENT:
            event_id = event_of[payload["origin"]["reference"]]
            origin_of[payload["idempotency_key"]] = event_id
            wanted[event_id] = wanted.get(event_id, 0) + 1
        elif event_type == ACTION_OUTCOME and at is not None:
            done.setdefault(origin_of[payload["idempotency_key"]], []).append(at)
    acted = {event_id: max(times) for event_id, times in done.items() if len(times) == wanted[event_id]}
    return Stages(decided, acted, wanted, _audited(plane, event_of, objects_folder))


def _messages(log: EventLog) -> Iterator[tuple[str, int, Any]]:
    for info in log.partitions():
        basis = None
        while True:
            batch = log.read(info.partition_id, basis, 4_000)
            if batch.next == basis or not batch.offsets:
                break
            basis = batch.next
            for event_type, offset, payload in zip(batch.event_types, batch.offsets, batch.payloads, strict=True):
                yield event_type, int(offset), orjson.loads(payload)


def _audited(plane: Plane, event_of: Mapping[str, str], objects_folder: Path) -> dict[str, float]:
    """When the object of the first head that covers each decision was put."""
    to_counter = time.perf_counter() - time.time()
    with plane.pool.connection() as connection:
        leaves = connection.execute(_LEAVES).fetchall()
        sizes = [size for (size,) in connection.execute(_HEADS).fetchall()]
    put_at = [(objects_folder / head_path(size)).stat().st_ctime_ns / 1e9 + to_counter for size in sizes]
    audited = {}
    for decision_id, leaf_index in leaves:
        place = bisect_right(sizes, leaf_index)
        if decision_id in event_of and place < len(sizes):
            audited[event_of[decision_id]] = put_at[place]
    return audited
