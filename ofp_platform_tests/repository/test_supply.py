"""What the software is made of: the audit of the pins, the bill of materials, and the notices."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


audit = program("audit")


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.lock"
    pins = ["Some_Package[x]==1.5.2 \\", "    --hash=sha256:aa", "other==2.0 ; python_version < '4' \\", "    --hash=sha256:bb"]
    path.write_text("\n".join(pins) + "\n")
    return path


def advisory(*events: dict[str, str], name: str = "some-package", **fields: Any) -> dict[str, Any]:
    affected = {"package": {"ecosystem": "PyPI", "name": name}, "ranges": [{"type": "ECOSYSTEM", "events": list(events)}]}
    return {"id": "GHSA-1", "aliases": ["CVE-1"], "summary": "reads what it must not", "affected": [affected], **fields}


def exported(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, entry in enumerate(entries):
            archive.writestr(f"{number}.json", json.dumps(entry))
    return path


def test_a_pin_within_a_range_is_a_fault_and_an_accepted_one_is_not(
    tmp_path: Path, lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = exported(tmp_path, advisory({"introduced": "1.0"}, {"fixed": "1.6"}), advisory({"introduced": "0"}, name="not-ours"))
    assert audit.audit_offline(export, (lock,), set()) == 1
    output = capsys.readouterr()
    assert output.err == "some-package 1.5.2: GHSA-1, CVE-1: reads what it must not\n"
    assert output.out == "2 pins, 2 advisories: 1 faults\n"
    assert audit.audit_offline(export, (lock,), {"CVE-1"}) == 0


def test_a_folder_is_read_like_a_zip(tmp_path: Path, lock: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one.json").write_text(json.dumps(advisory({"introduced": "0"})))
    assert audit.audit_offline(tmp_path, (lock,), set()) == 1


def test_a_withdrawn_advisory_and_another_ecosystem_mean_nothing(tmp_path: Path, lock: Path) -> None:
    other = advisory({"introduced": "0"})
    other["affected"][0]["package"]["ecosystem"] = "npm"
    withdrawn = advisory({"introduced": "0"}, withdrawn="2026-01-01T00:00:00Z")
    assert audit.audit_offline(exported(tmp_path, withdrawn, other), (lock,), set()) == 0


@given(
    ours=st.integers(0, 9),
    spans=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4), st.booleans()), max_size=3),
)
def test_ranges_hold_what_their_bounds_say(ours: int, spans: list[tuple[int, int, bool]]) -> None:
    events, inside, start = [], False, 0
    for gap, length, last in spans:
        first, end = start + gap, start + gap + length
        events += [{"introduced": str(first)}, {"last_affected" if last else "fixed": str(end)}]
        inside |= first <= ours <= end if last else first <= ours < end
        start = end + 1
    assert audit.affects({"ranges": [{"type": "ECOSYSTEM", "events": events}]}, str(ours)) == inside


def test_a_version_that_is_listed_is_meant_and_a_bound_that_is_no_version_is_looked_at() -> None:
    assert audit.affects({"versions": ["1.5.2"]}, "1.5.2")
    assert audit.affects({"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "tip"}, {"fixed": "tip2"}]}]}, "1.5.2")
    assert not audit.affects({"ranges": [{"type": "GIT", "events": [{"introduced": "0"}]}]}, "1.5.2")


def test_what_is_not_there_is_no_audit(tmp_path: Path, lock: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(audit.AuditFault, match="holds no advisory at all"):
        audit.audit_offline(empty, (lock,), set())
    with pytest.raises(audit.AuditFault, match="neither a folder of advisories nor a zip"):
        audit.audit_offline(tmp_path / "absent.zip", (lock,), set())
    (empty / "one.json").write_text("[]")
    with pytest.raises(audit.AuditFault, match=r"one\.json is no advisory"):
        audit.audit_offline(empty, (lock,), set())
    nothing = tmp_path / "nothing.lock"
    nothing.write_text("# no pin\n")
    with pytest.raises(audit.AuditFault, match="nothing to look up"):
        audit.audit_offline(exported(tmp_path, advisory({"introduced": "0"})), (nothing,), set())


def test_an_acceptance_ends_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "accepted.txt"
    path.write_text("# a comment\n\nGHSA-1 2026-02-01 not reachable\n")
    assert audit.accepted(path, date(2026, 2, 1)) == {"GHSA-1"}
    with pytest.raises(audit.AuditFault, match=r"accepted\.txt:3: GHSA-1 was accepted until 2026-02-01"):
        audit.accepted(path, date(2026, 2, 2))
    path.write_text("GHSA-1 2026-02-01\n")
    with pytest.raises(audit.AuditFault, match=r"accepted\.txt:1: not 'ID"):
        audit.accepted(path, date(2026, 2, 1))


def test_all_pins_of_the_lock_files_are_looked_up() -> None:
    pins = audit.pins(audit.LOCKS)
    lines = [line for lock in audit.LOCKS for line in lock.read_text().splitlines() if re.match("[A-Za-z0-9]", line)]
    assert len(lines) > len(pins) >= len({line.split("==")[0] for line in lines})
    for _, version in pins:
        Version(version)


def test_the_bill_of_materials_is_the_lock_file_with_its_hashes(tmp_path: Path) -> None:
    recipe = re.search(r"cyclonedx-py (.+) -o dist/sbom", (ROOT / "Makefile").read_text())
    assert recipe is not None
    path = tmp_path / "sbom.json"
    command = [str(Path(sys.executable).parent / "cyclonedx-py"), *recipe[1].split(), "-o", str(path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    bill = json.loads(path.read_text())
    assert bill["metadata"]["component"]["name"] == "ofp-platform"
    assert {(part["name"], part["version"]) for part in bill["components"]} == audit.pins((ROOT / "requirements.lock",))
    for part in bill["components"]:
        hashes = [entry for reference in part["externalReferences"] for entry in reference.get("hashes", ())]
        assert hashes, part["name"]
        assert {entry["alg"] for entry in hashes} == {"SHA-256"}


def test_the_notice_names_what_is_installed_here() -> None:
    notice = program("notice")
    text = (ROOT / "NOTICE").read_text()
    assert text.startswith(notice.HEADING)
    listed = dict(line.split(": ", 1) for line in text.removeprefix(notice.HEADING).splitlines())
    assert set(listed) == set(notice.packages())
    assert all(listed.values())


def test_the_licence_of_the_package_is_the_file() -> None:
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()
    assert "Apache License" in (ROOT / "LICENSE").read_text()
