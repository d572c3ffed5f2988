"""The commands of docs/worlds.md, in a home that nobody used before."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from typer.main import get_command

from ofp_platform.cli.main import app
from ofp_platform.vocabulary.world import OutputRole
from ofp_platform_tests.cli.program import call

PAGE = Path(__file__).resolve().parents[2] / "docs" / "worlds.md"


def test_the_commands_run_as_written(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    commands = re.findall(r"^\$ (ofp world .+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        outcome = call(*shlex.split(command)[1:], OFP_HOME=str(tmp_path / "home"))
        assert outcome.code == 0, outcome
    assert "june  sealed" in call("world", "list", OFP_HOME=str(tmp_path / "home")).out


def test_sources_and_roles_are_those_of_the_program() -> None:
    text = PAGE.read_text(encoding="utf-8")
    make = get_command(app).commands["world"].commands["make"]  # type: ignore[attr-defined]
    options = {option for parameter in make.params for option in parameter.opts}
    assert set(re.findall(r"^\| `(--[a-z]+)", text, re.MULTILINE)) <= options
    assert all(f"`{role}`" in text for role in OutputRole)
