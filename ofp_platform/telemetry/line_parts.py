"""Parts of a log line that need no library."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from pathlib import PurePath

from ofp_platform.vocabulary.position import Basis

_MOST_PLACES = 6


def line_time() -> str:
    """The time of this machine in UTC, to the millisecond. It stands in front of a line, and is part of no value."""
    return f"{datetime.now(UTC).isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"


def error_places(error: BaseException, most: int = _MOST_PLACES) -> list[str]:
    """The places in the code that an error came through, the innermost first, as `file:line function`.

    They stand where its text would: that may quote a payload.
    """
    frames = traceback.extract_tb(error.__traceback__)[-most:]
    return [f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames)]


def positions(basis: Basis) -> dict[str, object]:
    """A basis as `extra` of a logging call: of each partition the offset as the basis has it, exclusive-next."""
    return {"positions": {part.partition_id: part.offset for part in basis.partitions}}
