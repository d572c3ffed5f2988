"""The commands of docs/cases.md run as written, in their order; its tables are those of the program."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

from ofp_platform.api.route_scopes import SCOPES
from ofp_platform.vocabulary.loop.case import LABEL_VALUES, CaseTrigger
from ofp_platform_tests.cli.program import call

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cases.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    part = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("| `")]


def test_the_commands_run_as_written(dsn: str, tmp_path: Path) -> None:
    variables = {"OFP_HOME": str(tmp_path), "OFP_DATABASE_URL": dsn, "OFP_PROFILE": "demo"}

    def run(*arguments: str) -> Any:
        outcome = call(*arguments, **variables)
        assert outcome.code == 0, outcome
        return outcome.out

    run("migrate")
    commands = re.findall(r"^\$ (ofp .+)$", PAGE, re.MULTILINE)
    assert len(commands) == 10
    for command in commands:
        run(*shlex.split(command)[1:])
    case = json.loads(run("case", "show", "payment-1", "--json"))
    assert [entry["content"]["entry_type"] for entry in case["timeline"]] == [
        "TRIGGERED",
        "NOTE",
        "ACTION_REQUESTED",
        "LABEL_PENDING",
        "LABEL_ACCEPTED",
        "CLOSED",
        "REOPENED",
    ]


def test_the_tables_are_those_of_the_program() -> None:
    assert sorted(row[0].strip("`") for row in rows("From a decision to a label")) == sorted(CaseTrigger)
    told = {row[0].strip("`"): dict(re.findall(r"`([a-z_]+)` (\d)", row[1])) for row in rows("Labels")}
    assert told == {name: {word: str(value) for word, value in words.items()} for name, words in LABEL_VALUES.items()}
    paths = {re.sub(r"\?.*", "", row[0].strip("`").split()[1]).replace("{id}", "{case_id}") for row in rows("Over HTTP")}
    assert paths == {path for path in SCOPES if path.startswith("/v0/cases")}
