"""Samples of health in a ring of one day: a file of fixed size that all workers of a service write to, and that outlives them.

A moment has its place in the ring, so nobody keeps a position, and nothing is to be locked: whoever writes to a place merges with
what stands there of the same moment. A torn or foreign entry fails its checksum and counts as not observed.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ofp_platform.storage.private_files import PRIVATE_FILE, make_private_folder
from ofp_platform.vocabulary.health_history import HealthHistory, HealthSample
from ofp_platform.vocabulary.serving import Health, PostureState
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, format_time

logger = logging.getLogger(__name__)
STEP_SECONDS = 10
FOLDER = "health"
"""The folder of a home."""
_SLOTS = 8_640  # of ten seconds: a day
_POINTS = 480
_UNKNOWN = -(2**63)
_FIELDS = struct.Struct("<QqqI")  # tick, lag, age, state
_CHECKSUM = struct.Struct("<I")
_BYTES = _FIELDS.size + _CHECKSUM.size
_STATES = (PostureState.GREEN, PostureState.AMBER, PostureState.RED)


@dataclass(frozen=True)
class _Entry:
    """One place of the ring; what is not known of it is None."""

    tick: int
    state: int
    lag: int | None
    age: int | None

    def merged(self, other: _Entry) -> _Entry:
        """The worst of both."""
        return _Entry(self.tick, max(self.state, other.state), _greatest(self.lag, other.lag), _greatest(self.age, other.age))

    def encoded(self) -> bytes:
        """As stored."""
        lag, age = (_UNKNOWN if value is None else value for value in (self.lag, self.age))
        fields = _FIELDS.pack(self.tick, lag, age, self.state)
        return fields + _CHECKSUM.pack(zlib.crc32(fields))


class HealthRing:
    """The ring in a file; without a path in memory, of this process alone."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._memory = bytearray(_SLOTS * _BYTES)
        self._is_failing = False

    def record(self, health: Health | None, now: float) -> None:
        """Keep a health of now (seconds since 1970); None: it cannot be told, which is RED. A failure leaves a hole."""
        lag = age = None
        if health is not None:
            lag = sum(partition.lag_records for partition in health.partitions) if health.partitions else None
            age = health.watermark_age_seconds
        state = _STATES.index(PostureState.RED if health is None else health.state)
        try:
            self._write(_Entry(int(now) // STEP_SECONDS, state, lag, age))
        except OSError as error:
            if not self._is_failing:
                logger.warning("health is not kept over time: %s: %s", self._path, error.strerror)
            self._is_failing = True
        else:
            self._is_failing = False

    def history(self, now: float, hours: int) -> HealthHistory:
        """The samples of the last hours, in spans of so many seconds that there are at most some hundreds.

        Raises:
            OSError: the file cannot be read.
        """
        steps = -(-hours * 3600 // STEP_SECONDS // _POINTS)
        last = int(now) // STEP_SECONDS // steps
        first = last - hours * 3600 // STEP_SECONDS // steps + 1
        worst: dict[int, _Entry] = {}
        for entry in self._entries():
            span = entry.tick // steps
            if first <= span <= last:
                worst[span] = worst[span].merged(entry) if span in worst else entry
        return HealthHistory(
            seconds=steps * STEP_SECONDS,
            samples=tuple(_sample(span * steps, worst.get(span)) for span in range(first, last + 1)),
        )

    def _write(self, entry: _Entry) -> None:
        place = entry.tick % _SLOTS * _BYTES
        if self._path is None:
            self._memory[place : place + _BYTES] = self._merged(entry, bytes(self._memory[place : place + _BYTES]))
            return
        make_private_folder(self._path.parent)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            os.pwrite(file, self._merged(entry, os.pread(file, _BYTES, place)), place)
        finally:
            os.close(file)

    @staticmethod
    def _merged(entry: _Entry, stored: bytes) -> bytes:
        present = _decoded(stored)
        return (entry if present is None or present.tick != entry.tick else entry.merged(present)).encoded()

    def _entries(self) -> Iterator[_Entry]:
        content = bytes(self._memory)
        if self._path is not None:
            try:
                content = self._path.read_bytes()[: _SLOTS * _BYTES]
            except FileNotFoundError:
                return
        for place in range(0, len(content), _BYTES):
            entry = _decoded(content[place : place + _BYTES])
            if entry is not None and entry.tick % _SLOTS * _BYTES == place:
                yield entry


def _decoded(stored: bytes) -> _Entry | None:
    if len(stored) != _BYTES or zlib.crc32(stored[: _FIELDS.size]) != _CHECKSUM.unpack_from(stored, _FIELDS.size)[0]:
        return None
    tick, lag, age, state = _FIELDS.unpack_from(stored)
    if not tick or state >= len(_STATES):
        return None  # nothing was ever written there: zeros have a checksum of zero
    return _Entry(tick, state, None if lag == _UNKNOWN else lag, None if age == _UNKNOWN else age)


def _greatest(one: int | None, other: int | None) -> int | None:
    return max((value for value in (one, other) if value is not None), default=None)


def _sample(tick: int, entry: _Entry | None) -> HealthSample:
    return HealthSample(
        at_utc=format_time(tick * STEP_SECONDS * MICROS_PER_SECOND),
        state=None if entry is None else _STATES[entry.state],
        lag_records=None if entry is None else entry.lag,
        watermark_age_seconds=None if entry is None else entry.age,
    )
