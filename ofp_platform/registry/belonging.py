"""Which records of a log a run's fold may look at: those of its pins that are not ahead of their admission."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofp_platform.vocabulary.identity import ContextPins, pins_digest


@dataclass(frozen=True, eq=False)
class Belonging:
    """bool[n] each, every record in exactly one: `own` is looked at, `future` and `wrong_pins` are apply failures (a time
    too far past the admission; this run's id with other pins), `other_run` belongs to another run."""

    own: npt.NDArray[np.bool_]
    future: npt.NDArray[np.bool_]
    wrong_pins: npt.NDArray[np.bool_]
    other_run: npt.NDArray[np.bool_]


def belonging(
    run: ContextPins,
    pins: Sequence[ContextPins],
    pins_index: npt.NDArray[np.int32],
    ts: npt.NDArray[np.int64],
    admitted_at: npt.NDArray[np.int64],
    clock_skew_us: int,
) -> Belonging:
    """Sort n records: `pins[pins_index[i]]` are the pins of record i, times and skew in microseconds."""
    own_digest = pins_digest(run)
    same = np.array([pins_digest(record_pins) == own_digest for record_pins in pins], np.bool_)[pins_index]
    same_run_id = np.array([record_pins.run_id == run.run_id for record_pins in pins], np.bool_)[pins_index]
    ahead = ts > admitted_at + clock_skew_us
    return Belonging(own=same & ~ahead, future=same & ahead, wrong_pins=~same & same_run_id, other_run=~same & ~same_run_id)
