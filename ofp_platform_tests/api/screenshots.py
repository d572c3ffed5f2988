"""Pictures of every page of the console and the main pages of Dagster, in both themes, of a plane with the demo's data.

`python -m ofp_platform_tests.api.screenshots FOLDER [HOME]`: HOME keeps the demo's data for the next time.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ofp_platform.cli.processes import Child, ofp_command
from ofp_platform.client import OfpClient
from ofp_platform_tests.api.console_server import NARROW, WIDE, browser, enter_key, show

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_SECONDS = 300
_LONG = frozenset({"catalogue", "dataset"})
"""Pages of which the first screen is enough."""
_LOADED = "ofp_platform.definitions"
DAGSTER = {
    "overview": ("/overview/activity/timeline", "24hr"),
    "assets": ("/assets", _LOADED),
    "lineage": ("/asset-groups", "Materialize all"),
    "runs": ("/runs", "Launched by"),
    "jobs": ("/jobs", _LOADED),
    "automation": ("/automation", _LOADED),
    "deployment": ("/locations", _LOADED),
}
"""Name to path, and a text that stands there once it is loaded."""


def console_pages(ofp: OfpClient) -> Iterator[tuple[str, str]]:
    """Each page by name, with something on it where the plane has something."""
    for name in ("health", "features", "snapshots", "catalogue", "decisions", "parity", "builds", "datasets", "operations"):
        yield name, f"/{name}"
    yield from (("failures", "/failures"), ("difference", "/difference"), ("key", "/key"))
    decisions = ofp.decisions(limit=2).decisions
    for decision in decisions[:1]:
        yield "decision", f"/decision/{decision.decision_id}"
        yield "snapshot", f"/snapshot/{decision.feature_snapshot_hash}"
        key, group = decision.feature_keys[0], decision.feature_groups[0]
        record = ofp.get_snapshot(decision.feature_snapshot_hash)
        features = next(
            of_group["features"]
            for of_key in record.hashed["values"]
            if of_key["key_id"] == key.key_id
            for of_group in of_key["by_group"]
            if of_group["group_name"] == group.group_name
        )
        place = f"{key.key_type}%3A{key.key_id}/{group.group_name}%3A{group.group_version}/{next(iter(features))}"
        yield "events", f"/events/{decision.feature_snapshot_hash}/{place}"
    if len(decisions) == 2:
        yield "differing", "/difference/" + "/".join(decision.feature_snapshot_hash for decision in decisions)
    for comparison in ofp.parity(limit=1).comparisons:
        yield "comparison", f"/comparison/{comparison.comparison_id}"
    for build in ofp.build_runs(limit=1).builds:
        yield "build", f"/build/{build.run_key}"
    for dataset in ofp.datasets(limit=1).datasets:
        yield "dataset", f"/dataset/{dataset.dataset_name}/{dataset.dataset_identity}"


def picture_console(opened: Browser, address: str, key: str, folder: Path) -> None:
    """Every page, wide and narrow, light and dark."""
    with OfpClient(address, token=key, timeout_seconds=30) as ofp:
        pages = dict(console_pages(ofp))
    for theme in ("light", "dark"):
        for form, (width, height) in {"wide": WIDE, "narrow": NARROW}.items():
            context = opened.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
            page = context.new_page()
            enter_key(page, address, key)
            for name, target in pages.items():
                show(page, target)
                page.screenshot(path=folder / f"{name}_{theme}_{form}.png", full_page=name not in _LONG)
            context.close()


def picture_dagster(opened: Browser, address: str, folder: Path) -> None:
    """The main pages; `address` opens the session."""
    base = address.partition("/?")[0]
    for theme in ("light", "dark"):
        context = opened.new_context(viewport={"width": WIDE[0], "height": WIDE[1]}, color_scheme=theme)
        page = context.new_page()
        page.goto(address)
        page.evaluate("theme => localStorage.setItem('theme', JSON.stringify(theme))", f"{theme.capitalize()}")
        for name, (path, text) in DAGSTER.items():
            page.goto(base + path)
            page.get_by_text(text).first.wait_for(timeout=_SECONDS * 1_000)
            page.wait_for_load_state("networkidle")
            page.screenshot(path=folder / f"dagster_{name}_{theme}.png")
        context.close()


def main(folder: Path, home: Path) -> None:
    """Fill a home with the demo's data unless it has them, start everything, and write the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(ofp_command("demo", "--home", str(home)), check=True, stdout=subprocess.DEVNULL)
    variables = {"OFP_HOME": str(home), "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    command = ofp_command("up", "--home", str(home), "--port", "0", "--dagster-port", "0")
    with Child("ofp up", command, variables, home / "up.log") as plane, browser() as opened:
        plane.wait_for_line("ready", _SECONDS)
        (service,) = re.findall(r"^HTTP service +(\S+)", plane.text(), re.M)
        (dagster,) = re.findall(r"^Dagster UI +(\S+)", plane.text(), re.M)
        picture_console(opened, service, (home / "keys" / "console.key").read_text(encoding="utf-8").strip(), folder)
        picture_dagster(opened, dagster, folder)
    print(f"{len(list(folder.glob('*.png')))} pictures in {folder}")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        with TemporaryDirectory(prefix="ofp-pictures-") as scratch:
            main(Path(sys.argv[1]), Path(scratch))
