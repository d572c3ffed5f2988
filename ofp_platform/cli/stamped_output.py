"""Output with the time in front of each line, in UTC: how every process that `ofp up` starts writes its log."""

from __future__ import annotations

import os
import re
import sys
import threading
from datetime import UTC, datetime
from io import TextIOBase
from typing import TextIO

VARIABLE = "OFP_STAMPED_OUTPUT"
_STAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z ")


class StampedOutput(TextIOBase):
    """A text stream in front of another: whole lines go on, each with its time. Safe to share between threads."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._lock = threading.Lock()
        self._rest = ""

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """Of the stream behind."""
        return self._output.fileno()

    def write(self, text: str) -> int:
        """Write what is whole of it; the rest waits for the end of its line."""
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            if lines:
                stamp = f"{datetime.now(UTC).isoformat(timespec='milliseconds').removesuffix('+00:00')}Z "
                self._output.write("".join(f"{stamp}{line}\n" for line in lines))
                self._output.flush()
        return len(text)

    def close(self) -> None:
        """End a line that is not whole."""
        if self._rest:
            self.write("\n")
        super().close()


def stamp_output() -> None:
    """Stamp both streams of this process, if the process that started it asked for that."""
    if os.environ.get(VARIABLE):
        sys.stdout = StampedOutput(sys.stdout)
        sys.stderr = StampedOutput(sys.stderr)


def without_stamp(line: str) -> str:
    """A line as it was before its time was put in front."""
    return _STAMP.sub("", line, count=1)
