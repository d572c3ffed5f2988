"""Every command that prints facts prints them as JSON too, and every list fits 80 columns, with dates and usable digests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from ofp_platform.cli.main import app
from ofp_platform.cli.terminal.printed_facts import WIDTH, item, plain, print_facts, table, when
from ofp_platform_tests.cli.conftest import OfflinePlane
from ofp_platform_tests.cli.program import call

PRINT_NO_FACTS = {
    "action run": "runs until it is stopped",
    "archive keep": "runs until it is stopped",
    "database sql": "prints SQL",
    "decider run": "runs until it is stopped",
    "demo": "tells a story",
    "init": "writes files",
    "ingress serve": "runs until it is stopped",
    "mcp serve": "runs until it is stopped",
    "pack from-feast": "prints a pack, YAML",
    "pack infer": "prints a pack, YAML",
    "posture watch": "runs until it is stopped",
    "projector run": "runs until it is stopped",
    "serve": "runs until it is stopped",
    "services down": "stops what runs",
    "services run": "becomes another command, whose options follow",
    "services up": "runs until it is stopped",
    "up": "runs until it is stopped",
}
OPERATING = Path(__file__).resolve().parents[3] / "docs" / "operating.md"


def commands(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    parts = getattr(group, "commands", None)
    if parts is None:
        yield name, group
        return
    for part, command in parts.items():
        yield from commands(command, f"{name} {part}".strip())


COMMANDS = dict(commands(get_command(app)))


def test_every_command_that_prints_facts_prints_json() -> None:
    without = {name for name, command in COMMANDS.items() if not any("--json" in one.opts for one in command.params)}
    assert without == set(PRINT_NO_FACTS)


@pytest.mark.parametrize("name", ["", *(name for name in COMMANDS if name != "services run")])
def test_help_has_a_short_form_and_a_wrong_option_is_told_on_stderr(name: str) -> None:
    helped = call(*name.split(), "-h")
    assert (helped.code, helped.out.lstrip().startswith("Usage: "), helped.err) == (0, True, "")
    wrong = call(*name.split(), "--no-such-option")
    assert (wrong.code, wrong.out) == (2, "")
    assert "No such option: --no-such-option" in wrong.err


def test_the_page_says_what_each_json_is() -> None:
    page = OPERATING.read_text(encoding="utf-8").split("\n## JSON for programs\n")[1].split("\n## ")[0]
    told = [name for row in re.findall(r"^\| (`ofp [^|]+) \|", page, re.MULTILINE) for name in re.findall("`ofp ([^`]+)`", row)]
    assert sorted(told) == sorted(set(COMMANDS) - set(PRINT_NO_FACTS))


LISTS = [
    ("action", "list"),
    ("access", "list"),
    ("archive", "list"),
    ("archive", "verify"),
    ("case", "list"),
    ("catalog", "list"),
    ("dataset", "list"),
    ("database", "roles"),
    ("governance", "list"),
    ("id", "list"),
    ("intent", "list"),
    ("labels", "show"),
    ("log", "ends"),
    ("parity", "show"),
    ("principal", "list"),
    ("projection", "list"),
    ("projector", "anomalies"),
    ("projector", "failures"),
    ("projector", "status"),
    ("registry", "show"),
    ("retention", "--dry-run"),
]


def test_every_list_fits_and_is_json(offline: OfflinePlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    dataset = offline.built()
    (Path(offline.variables["OFP_HOME"])).mkdir(exist_ok=True)
    assert offline.ofp("principal", "add", "a-scorer-with-a-name", "--scope", "features:read", "--scope", "metrics").code == 0
    assert offline.ofp("intent", "cancel", offline.ofp("intent", "submit", offline.intent_file(name="another")).out[:8]).code == 0
    assert offline.ofp("projector", "catch-up").code == 0
    assert offline.ofp("decide", "--count", "3").code in (0, 1)
    offline.ofp("parity", "run")
    for command in LISTS:
        shown = offline.ofp(*command)
        assert shown.code == 0, shown
        assert shown.out or command[0] in ("access", "database", "governance", "id")
        assert all(len(line) <= WIDTH for line in shown.out.splitlines()), shown.out
        assert not re.search(r"\d:\d\d\+00|\d{4}-\d\d-\d\d \d\d:", shown.out), shown.out
        json.loads(offline.ofp(*command, "--json").out)
    first = offline.ofp("intent", "list").out.split()[0]
    assert offline.ofp("intent", "show", first).code == 0
    published = offline.ofp("dataset", "list").out.split()[0]
    assert dataset.startswith(published)
    assert offline.ofp("dataset", "verify", published).code == 0
    assert offline.ofp("parity", "show", offline.ofp("parity", "show").out.split()[0]).code == 0


def test_the_parts_of_a_list() -> None:
    assert list(item("a", 1, details=["word " * 20])) == ["a  1", "    " + "word " * 14 + "word", "    word word word word word"]
    assert list(item("a" * 90)) == ["a" * 90]  # what is copied from a list is never broken
    assert list(table(("name", "count"), [("long name", 1_000), ("b", 2)])) == [
        "name       count",
        "long name  1,000",
        "b              2",
    ]
    assert list(table(("name",), [])) == ["name"]
    assert when("2026-02-05T00:00:05.123456Z") == when(1_770_249_605_123_456) == "2026-02-05T00:00:05Z"
    assert when(None) == "none"
    assert plain({"a": (Path("x"), None, {1: True})}) == {"a": ["x", None, {"1": True}]}


def test_a_line_holds_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({"text": "a\x1b[2Jb\n"}, ["a\x1b[2Jb\nCLOSED by boss", "caf\u00e9 \u202etxt.exe", "\ud800"], as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "a\\x1b[2Jb\\nCLOSED by boss",
        "caf\u00e9 \\u202etxt.exe",
        "\\ud800",
    ]
    print_facts({"text": "a\x1b[2Jb\n"}, [], as_json=True)
    assert json.loads(capsys.readouterr().out) == {"text": "a\x1b[2Jb\n"}
