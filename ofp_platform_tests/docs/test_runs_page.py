"""The commands of docs/runs.md, with the line that it tells; and what they print."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ofp_platform.cli.environment import Environment
from ofp_platform_tests.cli.program import call

PAGE = Path(__file__).resolve().parents[2] / "docs" / "runs.md"


def test_the_commands_run_as_written(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    text = PAGE.read_text(encoding="utf-8")
    (line,) = re.findall(r"```yaml\n(.+)\n```", text)
    shipped = Environment(profile="demo").load_profile().model_dump(mode="json", exclude_none=True, exclude={"tiers"})
    content = {name: value for name, value in shipped.items() if name != "object_store_url"}
    with (tmp_path / "profile.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump({**content, **YAML(typ="safe").load(line)}, file)

    def run(*arguments: str) -> Any:
        variables = {"OFP_HOME": str(home), "OFP_DATABASE_URL": dsn, "OFP_PROFILE": str(tmp_path / "profile.yaml")}
        return call(*arguments, **variables, OFP_ROLE_PER_JOB="1")

    assert run("migrate").code == 0
    assert "nobody asked for run 'demo-1'" in run("run", "show").refused()
    assert run("run", "list").out == "nobody asked for a run\n"
    assert "cannot become ENDED: nobody asked for it" in run("run", "end", "--reason", "x").refused()
    for option, value in (("--speedup", "fast"), ("--reference", "a b"), ("--output", "A")):
        said = run("run", "request", "june", option, value).refused()
        assert said.startswith(f"{option.removeprefix('--').replace('output', 'outputs.0')}: String should match pattern")
    story, asking = text.split("## Asking by file")
    commands = re.findall(r"^\$ (ofp .+)$", story, re.MULTILINE)
    assert len(commands) == 5
    (tmp_path / "ask.yaml").write_text(asking.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    printed = []
    for command in commands:
        outcome = run(*shlex.split(command)[1:])
        assert outcome.code == 0, outcome
        printed.append(outcome.out)
        if command.startswith("ofp world make"):
            assert "takes no events: nobody asked for it" in run("world", "stream", "june").refused()
            assert "is not READY" in run("projector", "catch-up").refused()
    assert run("facts", "publish").out.startswith("published card-payments/demo-1 ")  # by the runner: they are shown
    assert "those that READY names, under 'card-payments/demo-1'" in run("facts", "publish", "facts/mine").refused()
    assert re.search(r"^run demo-1 READY since .+, operator: every gate passed$", printed[1], re.MULTILINE)
    assert len(re.findall(r"^  [a-z_]+ PASS [0-9a-f]{64}$", printed[1], re.MULTILINE)) == 8
    assert re.search(r"^run demo-1 ENDED since .+, operator: the world is over$", printed[4], re.MULTILINE)
    for_file, pending = re.findall(r"^\$ (ofp .+)$", asking, re.MULTILINE)
    assert "EQUIV_KEY_COLLISION" in run(*shlex.split(for_file)[1:]).out
    assert run(*shlex.split(pending)[1:]).out == "nobody waits for an answer\n"
    again = run("run", "end", "--reason", "twice")
    assert "it was so before: nothing was done" in again.out
    assert run("projector", "catch-up").code == 0
    assert "of world june, not of july" not in run("run", "show").out
    assert "takes no events: it is ENDED" in run("world", "stream", "june").refused()
    (status,) = json.loads(run("run", "list", "--json").out)
    assert (status["state"], status["sequence"]) == ("ENDED", 1)
    assert "demo-1  ENDED" in run("run", "list").out
    cancelled = json.loads(run("run", "cancel", "--reason", "wrong", "--json").out)
    assert (cancelled["state"], cancelled["is_new"]) == ("CANCELLED", True)
    assert "RUN_OVER" in run("run", "request", "june").refused()


def test_a_run_that_is_refused_says_why(dsn: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    profile = Environment(profile="demo").load_profile().model_dump(mode="json", exclude_none=True, exclude={"tiers"})
    content = {name: value for name, value in profile.items() if name != "object_store_url"}
    with (tmp_path / "profile.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump({**content, "control_stream": "june-control"}, file)
    variables = {"OFP_HOME": str(home), "OFP_DATABASE_URL": dsn, "OFP_PROFILE": str(tmp_path / "profile.yaml")}
    assert call("migrate", **variables).code == 0
    environment = Environment(home=home, database_url=dsn, profile=str(tmp_path / "profile.yaml"))
    with environment.open_plane("owner", create_stream=True):
        assert "published by the scenario runner" in call("facts", "publish", **variables).refused()
    assert "no world rings" in call("run", "request", "rings", **variables).refused()
    assert call("world", "make", "rings", "--rings", "--seal", **variables).code == 0
    refused = call("run", "request", "rings", "--output", "transfers", **variables)
    assert refused.code == 1
    assert "world_types: transfer/v1: the class map has no such type and version" in refused.err
    assert "  world_types FAIL " in refused.out
    assert "run demo-1 REFUSED since" in refused.out
