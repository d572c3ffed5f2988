"""The commands of docs/audit.md, as written, in their order; its table of faults; and what it says of the proof."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ofp_platform.audit.faults import FaultKind
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import open_pool
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform_tests.audit.conftest import AuditedPlane, fact
from ofp_platform_tests.cli.program import call

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")


def test_the_commands_run_as_written(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "contracts").symlink_to(ROOT / "contracts")
    monkeypatch.chdir(tmp_path)
    with open_pool(dsn) as pool:
        AuditedPlane(dsn, pool, ObjectStore(str(home / "objects"))).fill()
    words = {"ID": sha256_hex(canonical_bytes(fact(1).wire()))}
    assert call("audit", "key", "new", "witness.key").code == 0
    commands = re.findall(r"^\$ (.+)$", PAGE, re.MULTILINE)
    assert len(commands) == 9
    for command in commands:
        program, *arguments = (words.get(word, word) for word in shlex.split(command))
        if program == "python":
            done = subprocess.run([sys.executable, "-I", "-S", *arguments], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "PROVEN"), done
            continue
        outcome = call(*arguments, OFP_HOME=str(home), OFP_DATABASE_URL=dsn)
        assert outcome.code == 0, (command, outcome)
        if arguments[:3] == ["audit", "key", "new"]:
            words |= {"HEX" if arguments[3] == "audit.key" else "NEXT": outcome.out.strip()}
    verified = call("audit", "verify", "--public-key", words["HEX"], OFP_HOME=str(home), OFP_DATABASE_URL=dsn)
    assert (verified.code, verified.out.splitlines()[-1]) == (0, "VERIFIED")


def test_the_page_tells_every_fault() -> None:
    table = PAGE.split("| fault | what happened |")[1].split("\n\n")[0]
    assert set(re.findall(r"`([A-Z_]+)`", table)) == set(FaultKind)
