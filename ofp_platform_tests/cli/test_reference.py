"""docs/cli.md is what the program says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ofp_platform.cli import reference
from ofp_platform.cli.main import app


def commands() -> list[tuple[str, ...]]:
    """Every command, with the groups that it is in."""
    headings = re.findall(r"^##+ `ofp (.+)`$", reference.reference(), re.MULTILINE)
    return [tuple(heading.split()) for heading in headings]


def test_docs_cli_md_is_up_to_date() -> None:
    assert reference.FILE.read_text(encoding="utf-8") == reference.reference(), "make cli-reference"


def test_docs_profile_md_is_up_to_date_and_has_a_meaning_for_every_field() -> None:
    page = reference.profile_reference()
    assert reference.FILE.with_name("profile.md").read_text(encoding="utf-8") == page, "make cli-reference"
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert [row for row in rows if "None" in row.split(" | ")[2] or not row.split(" | ")[2].strip(" |")] == []
    assert len(rows) > 60


def test_a_drift_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pages = {tmp_path / path.name: content for path, content in reference.FILES.items()}
    monkeypatch.setattr(reference, "FILES", pages)
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
    (tmp_path / "cli.md").write_text("another")
    assert reference.main(["--check"]) == 1
    assert "is not what the program says" in capsys.readouterr().err


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    _, _, explained = result.stdout.partition("\n\n")
    assert explained.strip()
    assert not explained.lstrip().startswith("Options")


def test_without_a_command_it_lists_them() -> None:
    result = CliRunner().invoke(app, [])
    listed = re.findall(r"^  (\w+)", result.output.split("Commands:")[1], re.MULTILINE)
    assert set(listed) == {command[0] for command in commands()}


def test_a_command_that_is_not_one_is_a_usage_error() -> None:
    result = CliRunner().invoke(app, ["deom"])
    assert result.exit_code == 2
    assert "No such command 'deom'" in result.stderr
