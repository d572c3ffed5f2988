"""Who asked for what, and what came of it: appended to a file a day and process, never a value of a question or an answer.

A request adds one tuple; what waits is written twice a second, off the loop, and synced. A killed process loses at most that half
second. Where it cannot be written any more nothing is answered: an access that nobody could ever see is not given.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from heapq import merge
from pathlib import Path
from typing import NamedTuple

import orjson

from ofp_platform.storage.private_files import make_private_folder
from ofp_platform.vocabulary.errors import Reason
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, format_time

LOGGER = logging.getLogger("ofp.http")
WRITE_SECONDS = 0.5
FOLDER = "access"
"""The folder of a home."""
_MOST_WAITING = 65_536
_STRANGERS_A_BATCH = 50
_FILES = "access-*.ndjson"


class Access(NamedTuple):
    """One request, or `times` alike. `at`: seconds since 1970; `principal`: None where nobody is known; `credential`: by which
    key, or by the word of which issuer, it is that one.

    `digest`: the hash or key that was asked for or answered.
    """

    at: float
    principal: str | None
    credential: str | None
    route: str
    digest: str | None
    outcome: str
    times: int = 1

    def line(self) -> bytes:
        """As written: a line of JSON."""
        fields = {
            "at_utc": _time(self.at),
            "principal": self.principal,
            "credential": self.credential,
            "route": self.route,
            "digest": self.digest,
            "outcome": self.outcome,
        }
        return orjson.dumps(fields if self.times == 1 else fields | {"times": self.times}, option=orjson.OPT_APPEND_NEWLINE)


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return format_time(second * MICROS_PER_SECOND).removesuffix("Z")


def _time(at: float) -> str:
    """As `format_time`, which is called once a second instead of once a line."""
    second, micros = divmod(int(at * MICROS_PER_SECOND), MICROS_PER_SECOND)
    return f"{_second(second)}.{micros:06d}Z" if micros else f"{_second(second)}Z"


class AccessLog:
    """Appends to files of a folder, which one process writes to. `wall_clock` gives seconds since 1970."""

    def __init__(self, folder: Path, wall_clock: Callable[[], float], most_waiting: int = _MOST_WAITING) -> None:
        self._folder = folder
        self._wall_clock = wall_clock
        self._most_waiting = most_waiting
        # plain tuples: what is made of them is made where nobody waits
        self._waiting: deque[tuple[float, str | None, str | None, str, str | None, str]] = deque()
        self._is_failing = False

    def record(self, principal: str | None, credential: str | None, route: str, digest: str | None, outcome: str) -> None:
        """Add one request."""
        self._waiting.append((self._wall_clock(), principal, credential, route, digest, outcome))

    @property
    def is_full(self) -> bool:
        """Whether so much waits that nothing more may be answered."""
        return len(self._waiting) >= self._most_waiting

    def write(self) -> None:
        """Write what waits; what cannot be written waits on. Not to be called by two threads at once."""
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not batch:
            return
        try:
            self._append(_without_floods([Access(*fields) for fields in batch]))
            self._is_failing = False
        except OSError as error:
            self._waiting.extendleft(reversed(batch))
            if not self._is_failing:
                LOGGER.error("accesses cannot be written to %s: %s", self._folder, error.strerror or type(error).__name__)
            self._is_failing = True

    def _append(self, batch: list[Access]) -> None:
        make_private_folder(self._folder)
        by_day: dict[str, list[bytes]] = {}
        for access in batch:
            line = access.line()
            by_day.setdefault(line[11:21].decode(), []).append(line)
        for day, lines in by_day.items():
            path = self._folder / f"access-{day}-{os.getpid()}.ndjson"
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                content = b"".join(lines)
                try:
                    if os.write(descriptor, content) < len(content):
                        raise OSError(None, "the disk is full")
                    os.fsync(descriptor)
                except OSError:
                    os.ftruncate(descriptor, size)  # nothing half-written stays
                    raise
            finally:
                os.close(descriptor)


def _without_floods(batch: list[Access]) -> list[Access]:
    """The batch; of refused strangers, who may be many, only the first ones stand for themselves."""
    kept, left_out = [], 0
    last = batch[-1]
    strangers = 0
    for access in batch:
        if access.principal is None:
            strangers += 1
            if strangers > _STRANGERS_A_BATCH:
                left_out, last = left_out + 1, access
                continue
        kept.append(access)
    if left_out:
        kept.append(Access(last.at, None, None, "other", None, Reason.UNAUTHENTICATED.value, left_out))
    return kept


def read_accesses(folder: Path) -> Iterator[dict[str, object]]:
    """All accesses of a folder in the order of their times; a line that is not whole is told as one with outcome UNREADABLE."""
    yield from merge(*[_read(path) for path in sorted(folder.glob(_FILES))], key=lambda fields: str(fields["at_utc"]))


def remove_accesses(folder: Path, until: int, *, dry_run: bool) -> list[str]:
    """Remove the files whose day (UTC) was over by `until`, microseconds; their names. With `dry_run` nothing is removed."""
    today = format_time(until)[:10]
    old = [path for path in sorted(folder.glob(_FILES)) if _day(path) < today]
    for path in () if dry_run else old:
        path.unlink(missing_ok=True)
    return [path.name for path in old]


def _day(path: Path) -> str:
    return path.name.removeprefix("access-")[:10]


def _read(path: Path) -> Iterator[dict[str, object]]:
    at = ""
    with path.open("rb") as file:
        for line in file:
            try:
                fields = orjson.loads(line)
                at = fields["at_utc"]
            except (orjson.JSONDecodeError, TypeError, KeyError):
                fields = {
                    "at_utc": at,
                    "principal": None,
                    "credential": None,
                    "route": "other",
                    "digest": None,
                    "outcome": "UNREADABLE",
                }
            yield fields
