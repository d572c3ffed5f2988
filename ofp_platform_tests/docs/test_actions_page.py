"""The commands of docs/actions.md, with its policy, against the receiver; and what they refuse."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from ofp_platform.actions.webhook_signature import parse_secret
from ofp_platform.cli.demo.webhook_receiver import WebhookReceiver, serving
from ofp_platform.cli.environment import Environment
from ofp_platform_tests.cli.program import Outcome, call

PAGE = Path(__file__).resolve().parents[2] / "docs" / "actions.md"
SECRET = f"whsec_{'A' * 32}"
Ofp = Callable[..., Outcome]


class Notified(WebhookReceiver):
    """A receiver that is waited for."""

    def __init__(self) -> None:
        super().__init__(parse_secret(SECRET))
        self.is_done = threading.Event()

    def post(self, key: str, body: bytes) -> int:
        status = super().post(key, body)
        self.is_done.set()
        return status


class Silent(WebhookReceiver):
    """A receiver that does it, and answers with a broken connection."""

    def post(self, key: str, body: bytes) -> int:
        super().post(key, body)
        raise ConnectionAbortedError


@pytest.fixture
def variables(dsn: str, tmp_path: Path) -> dict[str, str]:
    """A home with the profile of the page, whose run is READY."""
    home = tmp_path / "home"
    home.mkdir()
    lines, _ = re.findall(r"```yaml\n(.+?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    shipped = Environment(profile="demo").load_profile().model_dump(mode="json", exclude_none=True, exclude={"tiers"})
    content = {name: value for name, value in shipped.items() if name != "object_store_url"}
    with (home / "profile.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump({**content, **YAML(typ="safe").load(lines)}, file)
    return {"OFP_HOME": str(home), "OFP_DATABASE_URL": dsn, "OFP_WEBHOOK_SECRET": SECRET, "OFP_PROFILE": ""}


@pytest.fixture
def ofp(variables: dict[str, str]) -> Ofp:
    def run(*arguments: str) -> Outcome:
        return call(*arguments, **variables)

    assert run("migrate").code == 0
    return run


def ready(ofp: Ofp) -> None:
    assert ofp("world", "make", "june", "--payments", "200", "--seal").code == 0
    assert ofp("run", "request", "june").code == 0


def write_policy(variables: dict[str, str], address: str) -> None:
    _, policy = re.findall(r"```yaml\n(.+?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (Path(variables["OFP_HOME"]) / "actions.yaml").write_text(policy.replace("http://127.0.0.1:8190", address), encoding="utf-8")


def test_the_commands_run_as_written(ofp: Ofp, variables: dict[str, str]) -> None:
    assert "No such file or directory: without an action policy nothing is done" in ofp("action", "run", "--once").refused()
    commands = re.findall(r"^\$ (ofp .+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 5
    receiver = WebhookReceiver(parse_secret(SECRET))
    with serving(receiver) as address:
        write_policy(variables, address)
        assert "is not READY" in ofp("action", "run", "--once").refused()
        assert ofp("action", "list").out == "nothing was wanted\n"
        ready(ofp)
        printed = []
        for command in commands:
            outcome = ofp(*shlex.split(command)[1:])
            assert outcome.code == 0, outcome
            printed.append(outcome.out)
    assert "2 OPEN" in printed[2]
    assert re.search(r"^2 EXECUTED$", printed[3], re.MULTILINE)
    (key,) = receiver.messages
    assert receiver.messages[key]["data"]["reason"] == "the owner called"
    assert f"{key[:12]}  EXECUTED  notify_decision  webhook:cases" in printed[4]
    shown = ofp("action", "show", key[:8]).out
    assert re.search(r"^  attempt 1 by cases at .+: DONE at .+: HTTP 200$", shown, re.MULTILINE)
    hold = json.loads(ofp(*shlex.split(commands[0])[1:], "--json").out)["intent"]["idempotency_key"]
    assert "  account:acct-17 is held now" in ofp("action", "show", hold).out
    again = json.loads(ofp(*shlex.split(commands[1])[1:], "--json").out)
    assert (again["state"], len(again["attempts"])) == ("EXECUTED", 1)
    assert "INTENT_CONFLICT" in ofp(*shlex.split(commands[1])[1:-1], "another reason").refused()
    assert "1 others under this key were refused" in ofp("action", "show", key).out


def test_what_nobody_knows_is_settled_by_hand(ofp: Ofp, variables: dict[str, str]) -> None:
    ready(ofp)
    write_policy(variables, "http://127.0.0.1:1")
    path = Path(variables["OFP_HOME"]) / "actions.yaml"
    path.write_text(re.sub(r" +status_url: .+\n", "", path.read_text(encoding="utf-8")), encoding="utf-8")
    wish = ("action", "request", "notify_decision", "webhook:cases", "--reason", "x", "--reference")
    key = json.loads(ofp(*wish, "ticket-1", "--json").out)["intent"]["idempotency_key"]
    reason = ("--reason", "seen in their books")
    assert "does not wait for people" in ofp("action", "settle", key, "--done", *reason).refused()
    with serving(Silent(parse_secret(SECRET))) as address:
        path.write_text(path.read_text(encoding="utf-8").replace("http://127.0.0.1:1", address), encoding="utf-8")
        assert "1 for `ofp action settle`" in ofp("action", "run", "--once").out
    assert "waiting: no answer: " in ofp("action", "show", key).out
    assert f"{key[:12]}  UNKNOWN" in ofp("action", "list", "--state", "UNKNOWN").out
    assert "Missing option" in ofp("action", "settle", key, *reason).err
    settled = json.loads(ofp("action", "settle", key[:8], "--done", *reason, "--actor", "ann", "--json").out)
    assert (settled["state"], settled["outcome"]["settled_by"]) == ("EXECUTED", "ann")
    assert "is over" in ofp("action", "settle", key, "--not-done", *reason).refused()
    assert json.loads(ofp("action", "list", "--json").out)["counts"] == {"EXECUTED": 1}


def test_refusals(ofp: Ofp, variables: dict[str, str]) -> None:
    options = ("--reference", "t", "--reason", "x")
    for arguments, words in (
        (("hold_account", "acct-1"), "write KEY_TYPE:KEY_ID"),
        (("hold_account", "shop:1"), "key_type"),
        (("Hold", "account:1"), "action_type"),
        (("hold_account", "webhook:No"), "webhook"),
    ):
        assert words in ofp("action", "request", *arguments, *options).refused()
    card = ("--reference", "t", "--reason", "card 4111111111111111")
    assert "a raw identifier" in ofp("action", "request", "hold_account", "account:1", *card).refused()
    assert "write 8 digits or more" in ofp("action", "show", "0").refused()
    assert "`ofp action list` shows them" in ofp("action", "show", "0" * 8).refused()
    write_policy(variables, "http://127.0.0.1:1")
    variables["OFP_WEBHOOK_SECRET"] = "hush"
    assert "OFP_WEBHOOK_SECRET: a secret is whsec_" in ofp("action", "run", "--once").refused()
    profile = Path(variables["OFP_HOME"]) / "profile.yaml"
    profile.write_text(re.sub(r"decisions_stream: .+\n", "", profile.read_text(encoding="utf-8")), encoding="utf-8")
    assert "names no decisions_stream" in ofp("action", "request", "hold_account", "account:1", *options).refused()


def test_an_executor_works_until_it_is_told_to_stop(ofp: Ofp, variables: dict[str, str]) -> None:
    ready(ofp)
    receiver = Notified()
    with serving(receiver) as address:
        write_policy(variables, address)
        environment = {**os.environ, **variables, "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "ofp_platform.cli.main", "action", "run"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("acting on stream june-decisions")
            ofp("action", "request", "notify_decision", "webhook:cases", "--reference", "t", "--reason", "x")
            assert receiver.is_done.wait(60)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines() == ["1 EXECUTED", "stopped"]
    assert json.loads(ofp("action", "list", "--json").out)["counts"] == {"EXECUTED": 1}
