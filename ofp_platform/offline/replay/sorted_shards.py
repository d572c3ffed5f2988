"""Sorted shards on disk: each is sorted once, by whoever asks first, and then mapped into memory by everybody.

Threads and processes may ask for one at the same time: what two of them make is equal, and the first to finish is kept.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np

from ofp_platform.offline.replay.key_shards import EventShard

_COLUMNS = tuple(field.name for field in fields(EventShard))


def sorted_shard(folder: Path, make: Callable[[], EventShard]) -> EventShard:
    """The shard that is kept in `folder`; `make` gives it when there is none yet. Its arrays cannot be written to."""
    if not folder.exists():
        _keep(folder, make())
    columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r").view(np.ndarray) for name in _COLUMNS}
    return EventShard(**columns)


def _keep(folder: Path, shard: EventShard) -> None:
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}-{threading.get_ident()}")
    partial.mkdir(parents=True)
    for name in _COLUMNS:
        np.save(partial / f"{name}.npy", np.ascontiguousarray(getattr(shard, name), np.int64))
    try:
        partial.rename(folder)
    except OSError:  # somebody was faster
        shutil.rmtree(partial)
