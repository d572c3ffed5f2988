"""The memory of a build as a setting: from records and a budget to how many shards a fold has and how many keys it holds.

What does not depend on the records is counted flat (measured: a process with its imports, one batch, its buffers; a few blocks of
rows); what does is divided until it fits: a worker holds one shard of the keys. One key is never divided: the events of the
greatest key are held at once whatever the budget.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ByteSize, TypeAdapter, ValidationError

from ofp_platform.offline.replay.key_shards import BUFFERED_ROWS, KEYS_HELD, event_width
from ofp_platform.registry.compile import CompiledRegistry

LEAST_SHARDS = 16
MOST_SHARDS = 1024
PROCESS_BYTES = 280_000_000
"""A process that folds: interpreter, imports, compiled kernels, one segment and one batch."""
BLOCK_BYTES = 320_000_000
"""The blocks of rows that are made, hashed and written at one time."""
_KEY_BYTES = 320  # an id in the router, in the digests, and its two halves
_LEAST_KEYS = 20_000
_ROW_COPIES = 5  # an event row as read, sorted, as a column of the matrix, and its indices
_SKEW = 2  # the greatest shard over the average one


class MemoryTooSmall(Exception):
    """The budget does not hold a build of that kind; the text says how much would."""


@dataclass(frozen=True)
class FoldSizes:
    """`shards`: files of events by key, of which a worker holds one; `keys_held`: ids that one process remembers, per key type.

    They change what is held in memory and on disk, and no byte of a result.
    """

    shards: int = LEAST_SHARDS
    keys_held: int = KEYS_HELD


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes that all processes of a build may hold together; `workers`: how many work at once. None: as the machine has it.

    Raises:
        MemoryTooSmall: so many workers do not fit, whatever the number of shards.
    """

    bytes: int | None
    workers: int

    def __post_init__(self) -> None:
        if self.bytes is not None and self.bytes < self.least:
            fewer = "" if self.workers == 1 else ", or fewer workers"
            raise MemoryTooSmall(
                f"a memory of {megabytes(self.bytes)} is too small: a build with {self.workers} workers needs at least"
                f" {megabytes(self.least)}: give it more{fewer}"
            )

    @property
    def least(self) -> int:
        """The least budget for so many workers, in bytes."""
        return (self.workers + 1) * PROCESS_BYTES + BLOCK_BYTES

    def fold_sizes(self, records: int, registry: CompiledRegistry) -> FoldSizes:
        """The sizes of a fold of about so many records.

        Raises:
            MemoryTooSmall: not even the most shards are small enough.
        """
        if self.bytes is None:
            return FoldSizes()
        layouts = registry.layouts.values()
        row_bytes = max((event_width(layout) * 8 for layout in layouts), default=8)
        spare_bytes = self.bytes - self.least
        buffers = sum(event_width(layout) * 8 * BUFFERED_ROWS for layout in layouts)
        keys = (spare_bytes // max(self.workers, 1) - buffers) // (max(len(registry.layouts), 1) * _KEY_BYTES)
        worker_bytes = (self.bytes - PROCESS_BYTES - BLOCK_BYTES) // self.workers
        shards = LEAST_SHARDS
        while (records * row_bytes * _ROW_COPIES * _SKEW) // shards > worker_bytes:
            shards *= 2
        if shards > MOST_SHARDS:
            least_bytes = (
                records * row_bytes * _ROW_COPIES * _SKEW * self.workers // MOST_SHARDS + PROCESS_BYTES + BLOCK_BYTES + 1_000_000
            )
            raise MemoryTooSmall(
                f"a memory of {megabytes(self.bytes)} is too small for {records:,} records: even one of {MOST_SHARDS} parts of"
                f" their keys does not fit with {self.workers} workers; give it {megabytes(least_bytes)}, or fewer workers"
            )
        return FoldSizes(shards, min(max(keys, _LEAST_KEYS), KEYS_HELD))


def memory_bytes(text: str) -> int:
    """Bytes from a text such as 3GB, 1.5GiB or 800MB.

    Raises:
        ValueError: it is no amount of memory.
    """
    try:
        amount = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        amount = 0
    if amount <= 0:
        raise ValueError(f"{text!r} is no amount of memory: write 3GB, 1.5GiB or 800MB")
    return amount


def megabytes(amount: int) -> str:
    """An amount of bytes for people, rounded up."""
    return f"{-(-amount // 1_000_000):,} MB"
