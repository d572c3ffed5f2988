"""Calls the program in this process, and keeps what it printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from ofp_platform.cli.main import app


@dataclass(frozen=True)
class Outcome:
    """What a command printed, and its exit code. `shown`: both streams as a terminal shows them."""

    code: int
    out: str
    err: str
    shown: str = field(default="", compare=False, repr=False)

    def refused(self) -> str:
        """What it said on stderr; that it was refused, and in words."""
        assert self.code == 1, self
        assert self.err.strip()
        assert "Traceback" not in self.err
        return self.err


Ofp = Callable[..., Outcome]


def call(*arguments: str, stdin: str | None = None, **environ: str) -> Outcome:
    """Run `ofp` with those arguments and variables; what it does not expect is raised here."""
    result = CliRunner().invoke(app, list(arguments), input=stdin, env=environ)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr, result.output)


def jsonl(path: Path, *events: Any) -> str:
    """A file of one event a line; what is no event is written as it is."""
    lines = (event if isinstance(event, str) else json.dumps(event) for event in events)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)
