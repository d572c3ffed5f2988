"""Output as the lines of a log: how every process that `ofp up` starts writes. Each line is a JSON object, or has its time in
front of it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Mapping
from io import TextIOBase
from typing import TextIO

VARIABLE = "OFP_STAMPED_OUTPUT"
FORM_VARIABLE = "OFP_LOG_FORM"
PRINTED = "ofp.output"
"""The logger of lines that were printed."""
PRINTED_LEVELS = {"stdout": "info", "stderr": "warning"}
"""The level of lines that were printed on each stream."""
_STAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z ")
_JSON_BEGIN = '{"time":'


class StampedOutput(TextIOBase):
    """A text stream in front of another: whole lines go on, each as a line of the log. Safe to share between threads.

    `fields`: of every line in JSON that was printed; lines that are of the log already pass as they are.
    """

    def __init__(self, output: TextIO, level: str = PRINTED_LEVELS["stdout"], *, as_json: bool = False) -> None:
        self._output = output
        self._level = level
        self._as_json = as_json
        self._lock = threading.Lock()
        self._rest = ""
        self.fields: Mapping[str, object] = {}

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
                self._output.write("".join(f"{self._of_log(line)}\n" for line in lines))
                self._output.flush()
        return len(text)

    def _of_log(self, line: str) -> str:
        if not self._as_json:
            from ofp_platform.telemetry.line_parts import line_time

            return line if _STAMP.match(line) else f"{line_time()} {line}"
        if line.startswith(_JSON_BEGIN):
            return line
        from ofp_platform.telemetry.log_lines import json_line

        return json_line(self._level, PRINTED, line, self.fields)

    def close(self) -> None:
        """End a line that is not whole."""
        if self._rest:
            self.write("\n")
        super().close()


def stamp_output() -> None:
    """Let this process write lines of a log, if the process that started it asked for that; JSON, if OFP_LOG_FORM is not text."""
    if os.environ.get(VARIABLE):
        as_json = os.environ.get(FORM_VARIABLE) != "text"
        for name, level in PRINTED_LEVELS.items():
            setattr(sys, name, StampedOutput(getattr(sys, name), level, as_json=as_json))


def without_stamp(line: str) -> str:
    """A line of a log as it was printed; of a line that was logged in JSON, its words, with the error and its places."""
    if not line.startswith(_JSON_BEGIN):
        return _STAMP.sub("", line, count=1)
    try:
        fields = json.loads(line)
        words = str(fields["event"])
        return words if "error" not in fields else f"{words} ({fields['error']} at {' < '.join(fields['places'])})"
    except (ValueError, LookupError, TypeError):
        return line
