"""Look every pin of the lock files up among the known advisories.

With a network: pip-audit asks the advisory service of the Python package index. Without one: `--advisories` names an export of
OSV's PyPI ecosystem (a zip, or a folder of JSON files), whose versions and ranges are compared here. A pin that cannot be
looked up, an export without advisories and an acceptance that is over are faults.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parent.parent
LOCKS = (ROOT / "requirements.lock", ROOT / "requirements-dev.lock")
ACCEPTED = ROOT / ".ci" / "advisories_accepted.txt"


class AuditFault(Exception):
    """The audit cannot be done, or its own files are wrong."""


@dataclass(frozen=True)
class Advisory:
    """An advisory about one version of one package. `names`: its ID and aliases."""

    package: str
    version: str
    names: tuple[str, ...]
    summary: str


def pins(locks: tuple[Path, ...]) -> set[tuple[str, str]]:
    """Canonical name and version of every pin."""
    lines = [line for lock in locks for line in lock.read_text(encoding="utf-8").splitlines()]
    matches = (re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==([^\s;\\]+)", line) for line in lines)
    result = {(canonicalize_name(match[1]), match[2]) for match in matches if match}
    if not result:
        raise AuditFault(f"no pin in {', '.join(map(str, locks))}: nothing to look up")
    return result


def accepted(path: Path, today: date) -> set[str]:
    """IDs that are let pass today.

    Raises:
        AuditFault: a line that is not `ID YYYY-MM-DD reason`, or whose day is over.
    """
    ids = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(r"(\S+) (\d{4}-\d{2}-\d{2}) (\S.*)", line)
        if match is None:
            raise AuditFault(f"{path.name}:{number}: not 'ID YYYY-MM-DD reason'")
        if date.fromisoformat(match[2]) < today:
            raise AuditFault(f"{path.name}:{number}: {match[1]} was accepted until {match[2]}; look at it again")
        ids.add(match[1])
    return ids


def advisories(export: Path) -> Iterator[dict[str, Any]]:
    """Every advisory of an OSV export.

    Raises:
        AuditFault: there is no such export, or a file of it is no advisory.
    """
    if export.is_dir():
        texts = ((path.name, path.read_bytes()) for path in sorted(export.rglob("*.json")))
    elif zipfile.is_zipfile(export):
        archive = zipfile.ZipFile(export)
        texts = ((name, archive.read(name)) for name in sorted(archive.namelist()) if name.endswith(".json"))
    else:
        raise AuditFault(f"{export}: neither a folder of advisories nor a zip of them (OSV's export of the ecosystem PyPI)")
    for name, text in texts:
        try:
            entry = json.loads(text)
        except ValueError as error:
            raise AuditFault(f"{export}: {name} is no JSON: {error}") from None
        if not isinstance(entry, dict) or "id" not in entry:
            raise AuditFault(f"{export}: {name} is no advisory in OSV's format: it has no id")
        yield entry


def affects(affected: dict[str, Any], version: str) -> bool:
    """Whether one `affected` entry of an advisory means this version: listed by name, or within a range."""
    if version in affected.get("versions", ()):
        return True
    ours = Version(version)
    for span in affected.get("ranges", ()):
        if span.get("type") != "ECOSYSTEM":
            continue
        inside = False
        for event in span.get("events", ()):  # in the order of versions, as the format asks
            if "introduced" in event:
                inside = inside or event["introduced"] == "0" or _at_least(ours, event["introduced"], unreadable=True)
            elif "fixed" in event:
                inside = inside and not _at_least(ours, event["fixed"], unreadable=False)
            elif "last_affected" in event:
                last = event["last_affected"]
                inside = inside and (version == last or not _at_least(ours, last, unreadable=False))
        if inside:
            return True
    return False


def _at_least(version: Version, other: str, *, unreadable: bool) -> bool:
    """Whether a version has reached a bound; `unreadable` where the bound is no version: the answer that gets it looked at."""
    try:
        return version >= Version(other)
    except InvalidVersion:
        return unreadable


def known_faults(export: Path, locked: set[tuple[str, str]]) -> tuple[list[Advisory], int]:
    """The advisories of an export that mean a pin, and how many the export has."""
    versions: dict[str, set[str]] = {}
    for name, version in locked:
        versions.setdefault(name, set()).add(version)
    faults, total = [], 0
    for entry in advisories(export):
        total += 1
        if "withdrawn" in entry:
            continue
        for affected in entry.get("affected", ()):
            package = affected.get("package", {})
            if package.get("ecosystem") != "PyPI":
                continue
            name = canonicalize_name(package["name"])
            faults += [
                Advisory(name, version, (entry["id"], *entry.get("aliases", ())), entry.get("summary", ""))
                for version in sorted(versions.get(name, ()))
                if affects(affected, version)
            ]
    if not total:
        raise AuditFault(f"{export}: holds no advisory at all; is it OSV's export of PyPI?")
    return faults, total


def audit_offline(export: Path, locks: tuple[Path, ...], accepted_ids: set[str]) -> int:
    """Print each advisory that means a pin and is not accepted. 1 where there is one."""
    locked = pins(locks)
    faults, total = known_faults(export, locked)
    faults = [fault for fault in faults if not accepted_ids & set(fault.names)]
    for fault in faults:
        print(f"{fault.package} {fault.version}: {', '.join(fault.names)}: {fault.summary}", file=sys.stderr)
    print(f"{len(locked)} pins, {total} advisories: {len(faults)} faults")
    return 1 if faults else 0


def audit_online(locks: tuple[Path, ...], accepted_ids: set[str]) -> int:
    """Let pip-audit look the pins up; its exit code."""
    command = [str(Path(sys.executable).parent / "pip-audit"), "--strict", "--disable-pip", "--require-hashes"]
    command += ["--progress-spinner=off"]
    command += [f"--requirement={lock}" for lock in locks] + [f"--ignore-vuln={name}" for name in sorted(accepted_ids)]
    code = subprocess.run(command, check=False).returncode
    if code:
        print("Where no network is: make audit ARGS='--advisories FILE', an export of OSV's PyPI advisories", file=sys.stderr)
    return code


def main(arguments: list[str] | None = None) -> int:
    """Audit the lock files. 0: nothing known against any pin; 1: a fault; 2: it could not be done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--advisories", type=Path, help="OSV's export of PyPI: a zip, or a folder of JSON files")
    options = parser.parse_args(arguments)
    try:
        accepted_ids = accepted(ACCEPTED, datetime.now(UTC).date())
        if options.advisories is None:
            return audit_online(LOCKS, accepted_ids)
        return audit_offline(options.advisories, LOCKS, accepted_ids)
    except AuditFault as fault:
        print(f"make audit: {fault}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
