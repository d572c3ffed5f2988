"""`python -m benchmarks.page`: publish the last runs: their raw results to docs/figures/, their tables to docs/figures.md.

The page is made from the files and from nothing else, so no figure on it can have been written by hand; a test holds the
two together. Texts outside the marks of the page are the authors'.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.figures import FOLDER

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "docs" / "figures"
PAGE = ROOT / "docs" / "figures.md"
BEGIN, END = "<!-- figures: made by `make figures` -->", "<!-- end of figures -->"
KINDS = {"bench": "Speed", "torture": "Survival"}


def tables(folder: Path = PUBLISHED) -> str:
    """Every published run as a section of the page."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    sections = []
    for kind, title in KINDS.items():
        sections.append(f"## {title}\n")
        sections += [_section(run) for run in runs if run["kind"] == kind]
    return "\n".join(sections)


def _section(run: dict[str, Any]) -> str:
    machine = run["machine"]
    lines = [f"### {run['title']}\n", "| what | seen | to reach | |", "|---|---|---|---|"]
    for row in run["rows"]:
        verdict = {None: "", True: "reached", False: "**not reached**"}[row["reached"]]
        lines.append(f"| {row['claim']} | {row['seen']} | {row['aim']} | {verdict} |".replace("|  |", "| |"))
    arguments = ", ".join(f"{name} {value}" for name, value in sorted(run["arguments"].items())) or "no arguments"
    lines.append(
        f"\n<sub>{run['taken_at']}, commit {run['commit']}, {run['seconds']:,.0f} s; {machine['cores']} × {machine['cpu']},"
        f" {machine['memory']}, {machine['system']}, Python {machine['python']}; {arguments};"
        f" raw: [figures/{run['kind']}-{run['suite']}.json](figures/{run['kind']}-{run['suite']}.json)</sub>\n"
    )
    return "\n".join(lines)


def page(text: str, tables: str) -> str:
    """The page with its tables replaced.

    Raises:
        ValueError: the page has lost its marks.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} must hold the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def main() -> None:
    """Copy and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=FOLDER, help="where the runs left their results")
    arguments = parser.parse_args()
    PUBLISHED.mkdir(exist_ok=True)
    for path in sorted(arguments.results.glob("*.json")):
        shutil.copy(path, PUBLISHED / path.name)
    PAGE.write_text(page(PAGE.read_text(), tables()))


if __name__ == "__main__":
    main()
