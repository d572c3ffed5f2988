"""Processes that a command starts and must stop again: started apart from the terminal's Ctrl-C, output kept in a file."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

from ofp_platform.cli.stamped_output import VARIABLE, without_stamp
from ofp_platform.cli.terminal.refusals import CommandRefused

_POLL_SECONDS = 0.05
_STOP_SECONDS = 20.0
_GROUP_SECONDS = 5.0
_LONG_BYTES = 16_000_000
_KEPT_LOGS = 9
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def program() -> str:
    """How whoever reads a message starts this program again: by its name where the shell finds it, else by its path."""
    path = Path(sys.executable).with_name("ofp")
    program_path = shutil.which("ofp")
    if program_path is not None and Path(program_path).absolute() == path:
        return "ofp"
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def ofp_command(*arguments: str) -> list[str]:
    """The command line of another `ofp`, in this interpreter."""
    return [sys.executable, "-m", "ofp_platform.cli.main", *arguments]


def tool_command(name: str, *arguments: str) -> list[str]:
    """The command line of a tool installed beside this interpreter."""
    return [str(Path(sys.executable).with_name(name)), *arguments]


def _end_with_parent(number: signal.Signals) -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, number)


def _put_aside(output: Path) -> None:
    """Rename a log that has grown long, and those put aside before it; the oldest goes.

    Raises:
        FileNotFoundError: there is no log yet.
    """
    if output.stat().st_size < _LONG_BYTES:
        return
    for number in range(_KEPT_LOGS, 1, -1):
        with suppress(FileNotFoundError):
            output.with_name(f"{output.name}.{number - 1}").rename(output.with_name(f"{output.name}.{number}"))
    output.rename(output.with_name(f"{output.name}.1"))


class Child:
    """One process, the leader of a group of its own. A context manager: stops it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        output: Path,
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Start it. `output` takes what it prints, behind what stands there; a long one is put aside first, as `NAME.1`.

        `stop_signal` asks it to end. `settings`: more of `subprocess.Popen`, as a folder to work in or another user.
        """
        self.name = name
        self._stop_signal = stop_signal
        self.output = output
        output.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            _put_aside(output)
        with output.open("ab") as file:
            self._began = file.tell()
            # a group of its own: on Ctrl-C the terminal signals its foreground group, and the order of stopping is ours
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **environment, "PYTHONUNBUFFERED": "1", VARIABLE: "1"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(_end_with_parent, stop_signal),  # one prctl, which is safe after a fork
                **(settings or {}),
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self._process.poll() is not None

    def text(self) -> str:
        """Output of the process so far, without that of earlier ones."""
        with self.output.open("rb") as file:
            file.seek(self._began)
            return file.read().decode("utf-8", errors="replace")

    def failure(self) -> CommandRefused:
        """The last lines of its output, for when it ended or does not become ready."""
        tail = "\n".join(f"    {without_stamp(line)}" for line in self.text().splitlines()[-15:])
        state = f"ended with exit code {self._process.returncode}" if self.ended else "does not become ready in time"
        nothing = f"it has printed nothing into {self.output}" + ("" if self.ended else " yet: call again")
        words = f"the end of {self.output}:\n{tail}" if tail else nothing
        return CommandRefused(f"{self.name} {state}; {words}")

    def wait_for_line(self, prefix: str, timeout_seconds: float, stop: threading.Event | None = None) -> str | None:
        """The rest of the first line printed that begins so. None when `stop` was set meanwhile.

        Raises:
            CommandRefused: it ended, or the time is over.
        """
        stop = stop or threading.Event()
        deadline = time.monotonic() + timeout_seconds
        while not stop.is_set():
            has_ended = self.ended  # looked at first: what it printed before it ended still counts
            for line in map(without_stamp, self.text().splitlines()):
                if line.startswith(prefix):
                    return line.removeprefix(prefix).strip()
            if has_ended or time.monotonic() > deadline:
                raise self.failure()
            stop.wait(_POLL_SECONDS)
        return None

    def ask_to_end(self) -> None:
        """Its stop signal, without waiting."""
        with suppress(ProcessLookupError):
            self._process.send_signal(self._stop_signal)

    def stop(self) -> None:
        """Its stop signal, time to finish, then SIGKILL for what is left of its group."""
        self.ask_to_end()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        deadline = time.monotonic() + _GROUP_SECONDS
        with suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < deadline:  # its own children may still be finishing
                os.killpg(self.pid, 0)
                time.sleep(_POLL_SECONDS)
            os.killpg(self.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()


def started(
    name: str, command: Sequence[str], environment: Mapping[str, str], output: Path, ready: str, seconds: float = 60.0
) -> Child:
    """A child that has printed a line which begins with `ready`.

    Raises:
        CommandRefused: it ended, or printed none in time; it was stopped.
    """
    child = Child(name, command, environment, output)
    try:
        child.wait_for_line(ready, seconds)
    except BaseException:
        child.stop()
        raise
    return child
