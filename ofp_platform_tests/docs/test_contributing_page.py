"""The map of the repository is true: tree, arrows, paths, make targets, modules without a test of their own name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "ofp_platform"
TESTS = ROOT / "ofp_platform_tests"
PATH = re.compile(r"`((?:ofp_platform|ofp_platform_tests|benchmarks|contracts|docs|infra)/[^`]*)`")


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def test_the_tree_has_every_package_and_room_and_no_other() -> None:
    stack: list[str] = []
    named: list[str] = []
    for line in section("The tree").split("```text\n", 1)[1].split("\n```", 1)[0].splitlines():
        entry = re.match(r"( *)([a-z]+)/ {2,}\S", line) or re.match(r"( *)([a-z_]+)/$", line)
        assert entry, line
        depth = len(entry[1]) // 2
        stack[depth:] = [entry[2]]
        named.append("/".join(stack))
    packages = {marker.parent.relative_to(ROOT).as_posix() for marker in PACKAGE.rglob("__init__.py")}
    assert len(named) == len(set(named))
    assert set(named) == packages


def test_the_arrows_are_those_of_the_import_linter() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    orders = {
        contract["id"]: " > ".join(contract["layers"]).replace("ofp_platform.", "")
        for contract in contracts
        if contract["type"] == "layers"
    }
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", section("The arrows"), re.MULTILINE)
    assert {name: order.replace("\\|", "|") for name, order in rows} == orders


def test_every_path_on_the_page_exists() -> None:
    paths = [path for path in PATH.findall(PAGE) if "<" not in path]
    assert len(paths) > 50
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_make_target_is_explained_once() -> None:
    targets = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    explained = re.findall(r"^\| `make ([a-z-]+)` \|", section("What each make target proves"), re.MULTILINE)
    assert sorted(explained) == sorted(targets)


def test_ci_runs_what_the_page_says() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    targets = re.search(r"^for target in (.+); do$", script, re.MULTILINE)
    row = re.search(r"^\| `make ci` \| what a change must pass: (.+) \|$", PAGE, re.MULTILINE)
    assert targets
    assert row
    assert row[1].split(", ") == targets[1].split()


def test_a_module_without_a_test_of_its_name_is_on_the_list() -> None:
    untested = set()
    for module in PACKAGE.rglob("*.py"):
        place = module.relative_to(PACKAGE)
        if module.name == "__init__.py" or "migrations" in place.parts:
            continue
        if not (TESTS / place.parent / f"test_{module.name}").exists():
            untested.add(module.relative_to(ROOT).as_posix())
    rows = re.findall(
        r"^\| `(ofp_platform[a-z_/]*/)` \| (.+) \| `(.+)` \|$", section("Where the test of a module is"), re.MULTILINE
    )
    listed = [f"{folder}{name}.py" for folder, names, _ in rows for name in re.findall(r"`([a-z_]+)`", names)]
    assert len(listed) == len(set(listed))
    assert set(listed) == untested
    assert all(Path(test).name.startswith("test_") for _, _, test in rows)
