"""The release of the code: another byte, another release; where the package is installed does not matter."""

from __future__ import annotations

import shutil
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import ofp_platform
from ofp_platform.offline.requests import code_release
from ofp_platform.offline.requests.code_release import code_release_id, package_digest
from ofp_platform.vocabulary.offline.build_plan import BuildPlan
from ofp_platform_tests.oracle.manifests import a_plan

PACKAGE = Path(ofp_platform.__file__).parent


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A copy of the package, as an installation would have it."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "site" / "ofp_platform", ignore=shutil.ignore_patterns("__pycache__")))


def test_it_names_version_and_files() -> None:
    assert code_release_id() == f"ofp-platform-{version('ofp-platform')}:{package_digest(PACKAGE)}"
    BuildPlan.model_validate({**a_plan().wire(), "ofs_code_release_id": code_release_id()})


def test_another_place_and_caches_do_not_change_it(installed: Path) -> None:
    (installed / "kernel" / "__pycache__").mkdir()
    (installed / "kernel" / "__pycache__" / "windows.cpython-311.pyc").write_bytes(b"1")
    (installed / "kernel" / "__pycache__" / "left.py").write_bytes(b"1")
    (installed / ".hidden.py").write_bytes(b"1")
    (installed / "kernel" / "notes.txt").write_bytes(b"1")
    assert package_digest(installed) == package_digest(PACKAGE)


@pytest.mark.parametrize("name", ["vocabulary/times.py", "offline/requests/policy_files/fraud_training.r1.yaml"])
def test_every_change_of_a_file_changes_it(installed: Path, name: str) -> None:
    before = package_digest(installed)
    file = installed / name
    content = file.read_bytes()
    file.write_bytes(content + b"\n")
    changed = package_digest(installed)
    file.write_bytes(content)
    assert package_digest(installed) == before != changed
    file.rename(file.with_stem("renamed"))
    assert package_digest(installed) not in (before, changed)


def test_it_looks_at_what_a_wheel_takes() -> None:
    data = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    assert {f".{name.rpartition('.')[2]}" for name in data["ofp_platform"]} | {".py"} == code_release._SUFFIXES
