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
import numpy.typing as npt
import orjson

from ofp_platform.offline.replay.key_shards import EventShard

Int64s = npt.NDArray[np.int64]
_COLUMNS = tuple(field.name for field in fields(EventShard))
_SHAPES = "shapes.json"


def sorted_shard(folder: Path, make: Callable[[], EventShard]) -> EventShard:
    """The shard that is kept in `folder`; `make` gives it when there is none yet. Its arrays cannot be written to."""
    if not folder.exists():
        _keep(folder, make())
    shapes = orjson.loads((folder / _SHAPES).read_bytes())
    return EventShard(**{name: _mapped(folder / name, tuple(shapes[name])) for name in _COLUMNS})


def _mapped(path: Path, shape: tuple[int, ...]) -> Int64s:
    """A file of int64, mapped. Not `np.load`, which parses a header as Python: CPython 3.11 does not do that in two threads."""
    if 0 in shape:
        array = np.empty(shape, np.int64)
        array.setflags(write=False)
        return array
    return np.memmap(path, np.int64, "r", shape=shape).view(np.ndarray)


def _keep(folder: Path, shard: EventShard) -> None:
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}-{threading.get_ident()}")
    partial.mkdir(parents=True)
    shapes = {}
    for name in _COLUMNS:
        array = np.ascontiguousarray(getattr(shard, name), np.int64)
        shapes[name] = array.shape
        array.tofile(partial / name)
    (partial / _SHAPES).write_bytes(orjson.dumps(shapes))
    try:
        partial.rename(folder)
    except OSError:  # somebody was faster
        shutil.rmtree(partial)
