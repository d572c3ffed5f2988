"""The commands of docs/bundles.md, with the line and the file that it shows; what they print, and refuse."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from ofp_platform.cli.environment import Environment
from ofp_platform.storage.objects import ObjectStore
from ofp_platform_tests.bundles.trained import model_of, report_of
from ofp_platform_tests.cli.program import Outcome, call

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bundles.md"
Run = Callable[..., Outcome]


@pytest.fixture
def run(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The program, with the profile of the page, in a folder that has its file."""
    line, file, retraining = re.findall(r"```yaml\n(.+?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    shipped = Environment(profile="demo").load_profile().model_dump(mode="json", exclude_none=True, exclude={"tiers"})
    content = {name: value for name, value in shipped.items() if name != "object_store_url"}
    with (tmp_path / "profile.yaml").open("w", encoding="utf-8") as profile:
        YAML(typ="safe", pure=True).dump({**content, **YAML(typ="safe").load(line + retraining)}, profile)
    (tmp_path / "bundle.yaml").write_text(file, encoding="utf-8")
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    variables = {
        "OFP_HOME": str(tmp_path / "home"),
        "OFP_DATABASE_URL": dsn,
        "OFP_PROFILE": str(tmp_path / "profile.yaml"),
        "OFP_OBJECT_STORE_URL": f"file://{tmp_path}/objects",
    }

    def program(*arguments: str) -> Outcome:
        return call(*arguments, **variables)

    assert program("migrate").code == 0
    return program


def acted(*arguments: str, actor: str = "ada") -> tuple[str, ...]:
    return ("bundle", *arguments, "--actor", actor, "--reason", "x")


def test_the_commands_run_as_written(run: Run) -> None:
    nothing = run("bundle", "resolve")
    assert (nothing.code, nothing.out) == (1, "nothing is in force of run demo-1\n")
    assert run("bundle", "list").out == "no bundle was published for this run\n"
    story, own = PAGE.read_text(encoding="utf-8").split("## A file of your own")
    printed = []
    for part in (story, own):
        for command in re.findall(r"^\$ (ofp .+)$", part, re.MULTILINE):
            outcome = run(*shlex.split(command)[1:])
            assert outcome.code == 0, outcome
            printed.append(outcome.out)
    assert len(printed) == 12
    assert re.match(r"0  PUBLISHED  card_payments/[0-9a-f]{12}", printed[0])
    assert re.match(r"\w+/fraud/active  card_payments/[0-9a-f]{12}  since step 2\n$", printed[3].replace("-", "_"))
    assert "decides on card_payment, with card_payments revision 1" in printed[5]
    assert "customer_activity v1, optional" in printed[5]
    assert "in place of card_payments/" in printed[9]
    assert re.match(r"7  ROLLED_BACK  card_payments/", printed[10])
    assert re.search(r"/fraud/active  card_bursts/.+  since step 6$", printed[11], re.MULTILINE)
    now = json.loads(run("bundle", "resolve", "--json").out)
    told = {entry["scope"]["slot"]: entry["in_force"]["bundle"]["bundle_name"] for entry in now["scopes"]}
    assert told == {"active": "card_payments", "shadow": "card_bursts"}
    steps = json.loads(run("bundle", "list", "--json").out)
    assert [step["event"]["sequence"] for step in steps] == list(range(8))[::-1]
    before_all = run("bundle", "resolve", "--at", "2020-01-01T00:00:00Z", "--json")
    assert (before_all.code, json.loads(before_all.out)["scopes"]) == (1, [])
    at_third = run("bundle", "resolve", "--at", steps[5]["event"]["at_utc"])
    assert "card_payments/" in at_third.out
    again = run(*acted("publish", "card_payments"))
    assert again.out.endswith("it was so before: nothing was done\n")
    assert "bundle_step" in run("governance", "list", "--fact", "bundle_step").out
    assert run(*acted("retire", "card_bursts")).refused().startswith("IN_FORCE: card_bursts/")


def test_refusals_are_told_in_words(run: Run, tmp_path: Path) -> None:
    assert "no published bundle of this run is called card_payments" in run("bundle", "show", "card_payments").refused()
    assert "not an RFC 3339 UTC time" in run("bundle", "resolve", "--at", "yesterday").refused()
    assert "it has no steps yet" in run("bundle", "resolve", "--sequence", "1").refused()
    assert "name both, by --model and --report" in run(*acted("publish", "card_payments", "--model", "m")).refused()
    assert "absent.yaml: No such file" in run(*acted("publish", "absent.yaml")).refused()
    assert "m.json: is not in" in run(*acted("publish", "card_payments", "--model", "m.json", "--report", "r.json")).refused()
    assert "event_type: pack card_payments has no transaction" in run(*acted("publish", "handbook")).refused()
    assert run(*acted("publish", "bundle.yaml")).code == 0
    text = (tmp_path / "bundle.yaml").read_text(encoding="utf-8")
    (tmp_path / "other.yaml").write_text(text.replace("value: 5", "value: 6"), encoding="utf-8")
    assert run(*acted("publish", "other.yaml")).code == 0
    assert "card_bursts names several bundles: card_bursts/" in run("bundle", "show", "card_bursts").refused()
    assert "FOUR_EYES" in run(*acted("approve", "card_bursts/" + digest(run))).refused()
    assert "NOT_APPROVED" in run(*acted("activate", "card_bursts/" + digest(run))).refused()


def digest(run: Run) -> str:
    return str(json.loads(run("bundle", "list", "--json").out)[0]["event"]["bundle"]["digest"])


def test_a_model_is_published_with_its_report(run: Run, tmp_path: Path) -> None:
    model = model_of({"source": "payload", "field": "amount_minor", "scale": 0})
    objects = ObjectStore(f"file://{tmp_path}/objects")
    objects.put_if_absent("learning/m.json", model.stored())
    objects.put_if_absent("learning/r.json", report_of(model, gates=[]).stored())
    named = ("--model", "learning/m.json", "--report", "learning/r.json")
    assert "no gate was asked for in the report on its model" in run(*acted("publish", "card_payments", *named)).out
    shown = run("bundle", "show", "card_payments")
    assert f"model learning/m.json {model.digest[:12]}" in shown.out
    assert json.loads(run("bundle", "show", "card_payments", "--json").out)["model"]["digest"] == model.digest


def test_a_bundle_is_told_to_a_catalogue(run: Run, tmp_path: Path) -> None:
    assert "no published bundle" in run("bundle", "export", "card_payments", "--openlineage", "lineage.ndjson").refused()
    assert run(*acted("publish", "card_payments")).code == 0
    told = run("bundle", "export", "card_payments", "--openlineage", "lineage.ndjson", "--json")
    assert told.code == 0, told
    event = json.loads(told.out)
    steps = json.loads(run("bundle", "list", "--json").out)
    assert [json.loads(line) for line in (tmp_path / "lineage.ndjson").read_text(encoding="utf-8").splitlines()] == [event]
    assert event["eventTime"] == steps[0]["event"]["at_utc"]
    digests = event["outputs"][0]["facets"]["ofp_digests"]["digests"]
    assert digests["bundle"] == steps[0]["event"]["bundle"]["digest"]
