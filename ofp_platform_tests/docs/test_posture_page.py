"""The commands of docs/posture.md, with the lines that it tells; and what they print."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from ofp_platform.cli.environment import Environment
from ofp_platform.posture.signals import OF_SERVICE, OF_TABLES
from ofp_platform.storage.posture_challenges import answer_challenges
from ofp_platform.storage.posture_changes import SILENCE_MILLISECONDS, hold_posture_shared
from ofp_platform.vocabulary.loop.posture import MASKS
from ofp_platform_tests.cli.program import Outcome, call

PAGE = Path(__file__).resolve().parents[2] / "docs" / "posture.md"
TEXT = PAGE.read_text(encoding="utf-8")
Run = Callable[..., Outcome]


def variables(folder: Path, dsn: str, **more: object) -> dict[str, str]:
    """Of a home with the demo's profile and these fields."""
    (folder / "home").mkdir()
    shipped = Environment(profile="demo").load_profile().model_dump(mode="json", exclude_none=True, exclude={"tiers"})
    content = {name: value for name, value in shipped.items() if name != "object_store_url"}
    with (folder / "profile.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump({**content, **more}, file)
    return {"OFP_HOME": str(folder / "home"), "OFP_DATABASE_URL": dsn, "OFP_PROFILE": str(folder / "profile.yaml")}


@pytest.fixture
def run(dsn: str, tmp_path: Path) -> Run:
    (lines,) = re.findall(r"```yaml\n(.+?)```", TEXT, re.DOTALL)
    environ = variables(tmp_path, dsn, **YAML(typ="safe").load(lines))
    return lambda *arguments: call(*arguments, **environ)


def test_the_commands_run_as_written(run: Run) -> None:
    commands = [shlex.split(command)[1:] for command in re.findall(r"^\$ (ofp .+)$", TEXT, re.MULTILINE)]
    assert len(commands) == 7
    printed = []
    for command in commands[:-1]:
        outcome = run(*command)
        assert outcome.code == 0, outcome
        printed.append(outcome.out)
    nobody = "nobody ever looked at the signals: `ofp posture watch`"
    assert printed[0] == f"FAIL_CLOSED is in force: nobody ever said anything else\n{nobody}\n"
    assert re.fullmatch(r"0  NORMAL, held  .+Z  operator\n    the bundle is in force\n", printed[1])
    assert re.fullmatch(r"2  HOLD  .+Z  operator\n    the rule is corrected\n", printed[3])
    assert "projection_posture: absent\n" in printed[4]
    assert "ambiguous_publishes: 0\n" in printed[4]
    assert "they ask for RULES_ONLY\n" in printed[4]
    assert printed[5].count("posture_changed") == 3
    nobody = run(*commands[-1])
    assert (nobody.code, nobody.out) == (1, "HOLD is in force\nno decider is live: nothing was proved\n")
    again = run("posture", "release", "--reason", "again")
    assert (again.code, again.out.splitlines()[-1]) == (0, "it was so before: nothing was done")


def test_a_challenge_is_answered_or_names_who_does_not(dsn: str, tmp_path: Path) -> None:
    environ = variables(tmp_path, dsn, control_stream="june-control")
    assert call("posture", "hold", "hold", "--reason", "stop", **environ).code == 0  # in any case
    environment = Environment(home=tmp_path / "home", database_url=dsn, profile=environ["OFP_PROFILE"])
    with environment.open_plane_without_log("decider") as plane, plane.pool.connection() as connection:
        pins = plane.profile.context_pins
        with connection.transaction():
            answer_challenges(connection, pins, "decider-1", hold_posture_shared(connection, pins))
    outcome = call("posture", "challenge", "--wait", "0.1", "--json", **environ)
    assert (outcome.code, json.loads(outcome.out)["silent"]) == (1, ["decider-1"])
    assert "decider-1 did not answer\n" in call("posture", "challenge", "--wait", "0.1", **environ).out
    shown = json.loads(call("posture", "show", "--json", **environ).out)
    assert (shown["in_force"]["mode"], shown["changes"][0]["held"]) == ("HOLD", True)


@pytest.mark.parametrize(
    ("more", "arguments", "words"),
    [
        ({}, ("hold", "HOLD", "--reason", "x"), "names no control_stream"),
        ({"control_stream": "c"}, ("release", "--reason", "x"), "nothing to release"),
        ({"control_stream": "c"}, ("watch", "--once"), "declares no posture.thresholds"),
        (
            {"control_stream": "c", "posture": {"thresholds": [{"signal": "luck", "at_least": 1, "mode": "HOLD"}]}},
            ("watch", "--once"),
            "nobody reads luck",
        ),
        (
            {"control_stream": "c", "posture": {"thresholds": [{"signal": "lag_records", "at_least": 1, "mode": "PANIC"}]}},
            ("show",),
            "posture.thresholds.0.mode",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    dsn: str, tmp_path: Path, more: dict[str, object], arguments: tuple[str, ...], words: str
) -> None:
    assert words in call("posture", *arguments, **variables(tmp_path, dsn, **more)).refused()


def test_a_hold_without_a_reason_is_no_command(dsn: str, tmp_path: Path) -> None:
    outcome = call("posture", "hold", "HOLD", "--reason", " ", **variables(tmp_path, dsn, control_stream="c"))
    assert outcome.code == 2
    assert "Invalid value for '--reason': say why" in outcome.err


def test_the_page_has_every_mode_and_signal() -> None:
    rows = re.findall(r"^\| `([A-Za-z_]+)` \|", TEXT, re.MULTILINE)
    assert rows == [*MASKS, *OF_SERVICE, *OF_TABLES]
    assert f"{SILENCE_MILLISECONDS / 1_000} seconds" in TEXT
