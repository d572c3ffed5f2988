"""Hold the package to code that the package itself reaches: `dead_code.py [ROOT]`; exit code 1 where something is not.

vulture looks at what `[tool.vulture]` in ROOT/pyproject.toml names: the package without its tests, so what only a test calls
is dead. What it reports must be deleted, or stand in ROOT/.ci/dead_code_allowed.txt as `path name: reason`. An entry without
a reason, or of a name that is not reported (any more), is an error too; so is nothing to look at.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ALLOWED = Path(".ci") / "dead_code_allowed.txt"
_REPORT = re.compile(r"(?P<path>[^:]+):\d+: unused \w+ '(?P<name>[^']+)' \(\d+% confidence\)")
_ENTRY = re.compile(r"(?P<path>\S+) (?P<name>\S+): (?P<reason>\S.*)")
_VULTURE_FOUND = {0, 3}  # exit codes: nothing, dead code; the others are errors of its input


def allowed_names(text: str) -> tuple[set[tuple[str, str]], list[str]]:
    """The entries of the list as (path, name), and the lines that are none."""
    entries, problems = set(), []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        entry = _ENTRY.fullmatch(line)
        if entry is None:
            problems.append(f"{ALLOWED}:{number}: not `path name: reason`: {line}")
        else:
            entries.add((entry["path"], entry["name"]))
    return entries, problems


def problems_of(root: Path) -> list[str]:
    """List the faults, a line each; empty when all code is reached, or allowed for a reason."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["vulture"]
    for name in settings["paths"]:
        if not any((root / name).rglob("*.py")):
            return [f"there is no Python file under {name}: nothing was looked at"]
    # its output is read, so no colours and no progress; it finds its settings in the folder that it runs in
    run = subprocess.run([sys.executable, "-m", "vulture"], cwd=root, capture_output=True, text=True, check=False)
    if run.returncode not in _VULTURE_FOUND:
        return [f"vulture could not look (exit code {run.returncode}): {(run.stdout + run.stderr).strip()}"]
    allowed, problems = allowed_names((root / ALLOWED).read_text(encoding="utf-8"))
    needed = set()
    for line in run.stdout.splitlines():
        report = _REPORT.fullmatch(line)
        key = None if report is None else (report["path"], report["name"])
        if key is not None and key in allowed:
            needed.add(key)
        else:
            problems.append(line)
    problems += [f"{ALLOWED}: {path} {name} is not reported: delete the entry" for path, name in sorted(allowed - needed)]
    return problems


def main() -> None:
    """Print what is wrong."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    problems = problems_of(root)
    if problems:
        print("\n".join(problems), file=sys.stderr)
        print(f"dead code: delete it with its tests, or say in {ALLOWED} why it stays", file=sys.stderr)
        raise SystemExit(1)
    print("no dead code but what is allowed")


if __name__ == "__main__":
    main()
