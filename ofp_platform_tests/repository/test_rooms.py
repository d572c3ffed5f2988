"""Every folder of the package is held by a contract of import-linter: one that comes later cannot be forgotten."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "ofp_platform"


def contracts() -> list[dict[str, Any]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]


def packages(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/__init__.py")}


def test_every_folder_with_rooms_has_a_complete_order() -> None:
    halls = {
        ".".join(folder.relative_to(ROOT).parts)
        for folder in [PACKAGE, *(marker.parent for marker in PACKAGE.rglob("__init__.py"))]
        if len(packages(folder)) > 1
    }
    complete = {container for contract in contracts() if contract.get("exhaustive") for container in contract["containers"]}
    assert len(halls) > 4
    assert complete == halls


def test_every_package_but_orchestration_is_kept_from_dagster() -> None:
    (contract,) = (contract for contract in contracts() if contract["id"] == "dagster-in-orchestration-only")
    sources = {name.removeprefix("ofp_platform.") for name in contract["source_modules"]}
    assert sources == packages(PACKAGE) - {"orchestration"}


def test_the_client_is_kept_from_every_package_but_the_vocabulary() -> None:
    (contract,) = (contract for contract in contracts() if contract["id"] == "client-is-installable-alone")
    names = {name for name in contract["forbidden_modules"] if name.startswith("ofp_platform.")}
    assert names == {f"ofp_platform.{name}" for name in packages(PACKAGE) - {"client", "vocabulary"}}
