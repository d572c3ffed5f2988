"""The pages for operators are true: their commands and configurations are run, their cures are tried on the damage they name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import dagster as dg
import pytest
from ruamel.yaml import YAML

from ofp_platform.cli.environment import Environment
from ofp_platform.online.plane import Plane
from ofp_platform.orchestration.code_location import code_location
from ofp_platform.orchestration.failure_alert import DEFAULT_RUNBOOK
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.registry.pack import shipped_pack_text
from ofp_platform_tests.cli.program import Outcome, call
from ofp_platform_tests.cli.terminal.test_printed_facts import COMMANDS
from ofp_platform_tests.docs.fenced import Block, blocks
from ofp_platform_tests.oracle.demo_plane import fill_demo_plane

DOCS = Path(__file__).resolve().parents[2] / "docs"
OPERATING, RUNBOOK = DOCS / "operating.md", DOCS / "runbook.md"
NEXT_VERSION = re.compile(r"(name: account_activity\n +version: )v1")


@pytest.fixture
def variables(dsn: str, tmp_path: Path) -> dict[str, str]:
    """A home with the demo's plane, and no profile of its own."""
    (tmp_path / "home").mkdir()
    fill_demo_plane(tmp_path / "home", dsn)
    return {"OFP_HOME": str(tmp_path / "home"), "OFP_DATABASE_URL": dsn}


def section(page: Path, heading: str) -> str:
    return page.read_text(encoding="utf-8").split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def commands(text: str) -> list[str]:
    """The `ofp ...` commands of a text, in their order."""
    return [" ".join(command.split()) for command in re.findall(r"`(ofp [^`]+)`", text)]


def run(command: str, variables: dict[str, str]) -> Outcome:
    outcome = call(*shlex.split(command)[1:], **variables)
    assert outcome.code == 0, f"{command}: {outcome.shown}"
    return outcome


def test_new_definitions_go_live_as_written(variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = section(OPERATING, "New definitions, beside the live ones")
    assert "stop `ofp up` and start it again" in text  # what `up` began with, it keeps
    wanted = [command for command in commands(text) if command != "ofp up"]
    assert wanted == [
        "ofp registry check .ofp/packs/next.yaml --store",
        "ofp init",
        "ofp projection rebuild",
        "ofp projection switch DIGEST",
        "ofp projection list",
    ]
    monkeypatch.chdir(tmp_path)
    pack, count = NEXT_VERSION.subn(r"\1v2", shipped_pack_text("card_payments"))
    assert count == 1
    next_pack = Path(variables["OFP_HOME"]) / "packs" / "next.yaml"
    next_pack.parent.mkdir()
    next_pack.write_text(pack, encoding="utf-8")
    assert "1 new, none redefined" in run(wanted[0].replace(".ofp/packs/next.yaml", str(next_pack)), variables).out
    profile = Path(run(wanted[1], variables).out.split()[1])
    stated = profile.read_text(encoding="utf-8")
    profile.write_text(stated.replace("pack: card_payments", "pack: packs/next.yaml"), encoding="utf-8")
    environment = Environment(home=Path(variables["OFP_HOME"]), database_url=variables["OFP_DATABASE_URL"])
    with environment.open_plane("owner", create_stream=True) as plane:
        before = plane.ensure_live()
        assert before.registry_digest != plane.profile.pack  # the former registry goes on being served
    rebuilt = run(wanted[2], variables).out
    digest = re.search(r"ofp projection switch ([0-9a-f]+)", rebuilt)
    assert digest, rebuilt
    assert "is live" in run(wanted[3].replace("DIGEST", digest[1]), variables).out
    with environment.open_plane("owner") as plane:
        assert plane.ensure_live().registry_digest.startswith(digest[1])
        assert plane.ensure_live().basis == before.basis
    assert digest[1] in run(wanted[4], variables).out


def test_a_pack_in_three_commands(variables: dict[str, str], tmp_path: Path) -> None:
    plan, apply, rollback = section(OPERATING, "A pack in three commands").split("```")[1].splitlines()[1:]
    pack, count = NEXT_VERSION.subn(r"\1v2", shipped_pack_text("card_payments"))
    assert count == 1
    (tmp_path / "next.yaml").write_text(pack, encoding="utf-8")

    def here(command: str) -> str:
        return command.replace(".ofp/packs/next.yaml", str(tmp_path / "next.yaml"))

    shown = run(here(plan), variables).out
    digest = shown.split("--plan ")[1].split()[0]
    assert "projection 2 is live" in run(here(apply).replace("DIGEST", digest), variables).out
    assert "projection 1 is live" in run(rollback, variables).out


def test_the_configurations_of_the_launchpad_are_valid(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    resource = PlaneResource()
    location = code_location(resource.load_profile(), resource)
    page = OPERATING.read_text(encoding="utf-8")
    switch = YAML(typ="safe").load(re.search(r"^ +ops:\n +make_rebuilt.*?(?=^ +```)", page, re.MULTILINE | re.DOTALL)[0])  # type: ignore[index]
    (submit,) = [YAML(typ="safe").load(block.text) for block in blocks(OPERATING) if "submit_intent:" in block.text]
    for job, config in (("switch_live", switch), ("submit_build", submit)):
        assert dg.validate_run_config(location.resolve_job_def(job), config)


def test_the_backfill_of_the_terminal_names_real_partitions(variables: dict[str, str]) -> None:
    (block,) = [block for block in blocks(OPERATING) if "dagster asset materialize" in block.text]
    assert _partitions(block) == ["0001"]
    with Plane.open(Environment(home=Path(variables["OFP_HOME"])).read_profile("demo"), variables["OFP_DATABASE_URL"]) as plane:
        assert set(_partitions(block)) <= {info.partition_id for info in plane.log.partitions()}
    assert "-m ofp_platform.definitions" in block.text


def _partitions(block: Block) -> list[str]:
    return sorted(set(re.findall(r"(\d{4})\|r\d{7}", block.text)))


@pytest.mark.parametrize("damaged", ["segment", "receipt", "both"])
def test_the_cure_for_a_damaged_archive_cures_it(variables: dict[str, str], damaged: str) -> None:
    (row,) = [line for line in section(RUNBOOK, "Archive and builds").splitlines() if line.startswith("| `ARCHIVE_DAMAGED`")]
    assert "move away the segment *and* its receipt (`segments/NAME.parquet` and `receipts/NAME.json`" in row
    run("ofp archive run --to-head", variables)
    (segment, *_) = sorted(Path(variables["OFP_HOME"], "objects").rglob("*.parquet"))
    receipt = segment.parents[1] / "receipts" / f"{segment.stem}.json"
    for path, name in ((segment, "segment"), (receipt, "receipt")):
        if damaged in (name, "both"):
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.chmod(0o644)
            path.write_bytes(bytes(content))
    verification = call("archive", "verify", **variables)
    assert verification.code == 1
    assert segment.stem in verification.err
    segment.unlink()
    receipt.unlink()
    cure = [command for command in commands(row) if "--to-head" in command or command == "ofp archive verify"]
    assert cure[1:] == ["ofp archive run --to-head", "ofp archive verify"]
    for command in cure[1:]:
        run(command, variables)
    assert segment.exists()
    assert receipt.exists()


def test_the_ten_situations_name_commands_and_sections_that_there_are() -> None:
    rows = [line for line in section(RUNBOOK, "Ten situations").splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 10
    for row in rows:
        for command in commands(row):
            name = next((name for name in COMMANDS if f"{command} ".startswith(f"ofp {name} ")), None)
            assert name is not None, command
            options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
            assert set(re.findall(r"--[a-z-]+", command)) <= options, command
        links = re.findall(r"\]\(([a-z]+\.md)?#([a-z0-9_-]+)\)", row)
        assert links, row
        assert row.count(" | ") == 3
        for page, anchor in links:
            assert anchor in anchors(DOCS / (page or RUNBOOK.name)), row


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_link_of_an_alert_about_a_run_leads_into_the_runbook() -> None:
    page, _, anchor = DEFAULT_RUNBOOK.partition("#")
    assert DOCS.parent / page == RUNBOOK
    assert anchor in anchors(RUNBOOK)
