"""Whether requirements.lock and requirements-dev.lock are what pyproject.toml asks for.

First without a network: every line is pinned and hashed, names no address, and the direct requirements of
pyproject.toml are exactly those that the lock marks as such, at versions that satisfy them. Then with the resolver: uv,
started from the committed locks, must change nothing. Where no package index answers, only the first part decides.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = "requirements.lock"
DEVELOPMENT = "requirements-dev.lock"
OPTIONS = ("--extra=plane", "--python-version=3.11", "--universal", "--generate-hashes", "--no-emit-index-url", "--no-header")
UNREACHABLE = re.compile(r"error sending request|client error|dns error|network|connect|timed out|offline", re.IGNORECASE)


def entries(text: str) -> dict[str, list[str]]:
    """Each pin of a lock file: its canonical name, and its lines."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith((" ", "#")):
            found.setdefault(canonicalize_name(re.split(r"[=;\[ ]", line, maxsplit=1)[0]), []).append(line)
            current = found[canonicalize_name(re.split(r"[=;\[ ]", line, maxsplit=1)[0])]
        elif line:
            current.append(line)
    return found


def offline_faults(lock_name: str, requirements: list[Requirement]) -> list[str]:
    """List the faults of one lock file, as far as the two files alone can tell."""
    text = (ROOT / lock_name).read_text(encoding="utf-8")
    faults = [
        f"{lock_name}:{number}: names an address or an index; locks hold versions and hashes only"
        for number, line in enumerate(text.splitlines(), 1)
        if "://" in line or line.startswith("-")
    ]
    pins = entries(text)
    wanted = {canonicalize_name(requirement.name) for requirement in requirements}
    for name, lines in pins.items():
        versions = [line for line in lines if not line.startswith(" ")]
        if not all("==" in line for line in versions) or not any("--hash=sha256:" in line for line in lines):
            faults.append(f"{lock_name}: {name} is not pinned with hashes")
        if any("(pyproject.toml)" in line for line in lines) and name not in wanted:
            faults.append(f"{lock_name}: {name} is marked as required by pyproject.toml, which does not name it")
    for requirement in requirements:
        lines = pins.get(canonicalize_name(requirement.name), [])
        if not any("(pyproject.toml)" in line for line in lines):
            faults.append(f"{lock_name}: '{requirement}' of pyproject.toml is not in it")
        for version in re.findall(r"^[^ ]*==([^ ;]+)", "\n".join(lines), re.MULTILINE):
            if not requirement.specifier.contains(version, prereleases=True):
                faults.append(f"{lock_name}: {requirement.name} {version} is not '{requirement}'")
    return faults


def resolver_faults() -> list[str]:
    """List the changes that uv would make, starting from the committed locks."""
    uv = Path(sys.executable).parent / "uv"
    environment = {**os.environ, "UV_HTTP_TIMEOUT": "30", "NO_COLOR": "1"}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("pyproject.toml", RUNTIME, DEVELOPMENT):
            shutil.copy(ROOT / name, folder)
        for extra in ((), ("--extra=dev", "--constraints", RUNTIME)):
            lock_name = DEVELOPMENT if extra else RUNTIME
            command = [str(uv), "pip", "compile", "--quiet", "pyproject.toml", *OPTIONS, *extra, "-o", lock_name]
            result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            unsolvable = "No solution found" in result.stderr
            if result.returncode and not unsolvable and UNREACHABLE.search(result.stderr):
                print("no package index answers; compared without the resolver")
                return []
            if result.returncode:
                return [f"{lock_name}: pyproject.toml cannot be resolved:\n{result.stderr.strip()}"]
            if (Path(folder) / lock_name).read_bytes() != (ROOT / lock_name).read_bytes():
                return [f"{lock_name}: pyproject.toml has changed since it was made; run 'make locks'"]
    return []


def main() -> int:
    """Print every fault; 0 when there is none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    runtime = [Requirement(text) for text in project["dependencies"] + extras["plane"]]
    development = runtime + [Requirement(text) for text in extras["dev"]]
    faults = offline_faults(RUNTIME, runtime) + offline_faults(DEVELOPMENT, development)
    faults = faults or resolver_faults()
    for fault in faults:
        print(fault, file=sys.stderr)
    if not faults:
        print("the lock files are what pyproject.toml asks for")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
