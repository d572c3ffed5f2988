"""docs/own-events.md is true: its files are made, and its commands run, in a folder of their own, from nothing to a model."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ofp_platform_tests.cli.program import call
from ofp_platform_tests.docs.fenced import blocks, transcript

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own-events.md"
HASH = re.compile(r"\b[0-9a-f]{64}\b")
NAMED = re.compile(r"\b[0-9a-f]{64}\b|(?<=fraud_by_booking:)[0-9a-f]{12}")


def alike(text: str) -> str:
    """An output without what depends on the machine or the release: hashes, seconds, scores, the folder."""
    named = r"(lineage|logistic_regression|decision_tree_depth_2|random_forest)-[0-9a-f]{16}"
    text = re.sub(named, r"\1-ID", HASH.sub("HASH", text))
    text = re.sub(r"\b\d+\.\d+ (?=(MB|s)\b)", "N ", re.sub(r"\b0\.\d{3}\b", "SCORE", text))
    text = re.sub(r"(fraud_by_booking:)[0-9a-f]{12}  \S+Z", r"\1DIGITS  TIME", text)
    return re.sub(r"(?m)^wrote \S*/(?=\.ofp/)", "wrote ", text).strip()


def run(command: str, variables: dict[str, str]) -> str:
    """What a command line prints: `ofp`, into a file or through head, tail or grep."""
    command, _, file = command.partition(" > ")
    command, _, rest = command.partition(" | ")
    outcome = call(*shlex.split(command)[1:], **variables)
    shown = outcome.shown
    if file:
        Path(file).write_text(shown, encoding="utf-8")
        return ""
    lines = shown.splitlines()
    match shlex.split(rest):
        case ["head", "-n", count]:
            lines = lines[: int(count)]
        case ["tail", "-n", count]:
            lines = lines[-int(count) :]
        case ["grep", words]:
            lines = [line for line in lines if words in line]
    assert outcome.code == 0, shown
    return "\n".join(lines)


def test_a_stranger_comes_from_files_to_a_model(empty_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    variables = {"OFP_HOME": ".ofp", "OFP_DATABASE_URL": empty_dsn}
    hashes: dict[str, str] = {}
    ran = 0
    for block in blocks(PAGE):
        if block.language == "python":
            exec(compile(block.text, PAGE.name, "exec"), {"__name__": "__main__"})
            continue
        for command, shown in transcript(block):
            here = re.sub(r"\b[0-9a-f]{8}\b", lambda digits: hashes.get(digits[0], digits[0]), command)
            got = run(here, variables)
            assert alike(got) == alike(shown), f"line {block.line}: {command}"
            pairs = zip(NAMED.findall(shown), NAMED.findall(got), strict=True)
            hashes.update({there[:8]: here_hash[:8] for there, here_hash in pairs})
            ran += 1
    assert ran >= 14
