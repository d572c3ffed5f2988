"""What no file of the repository may be called or contain."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VAGUE = re.compile(r"(utils?|helpers?|common|managers?|misc|phase_?\d*)", re.IGNORECASE)
# written in pieces, since this file is searched too
HOSTS = re.compile(
    r"|".join(
        re.escape(".".join(parts))
        for parts in [
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("npmjs", "org"),
            ("yarnpkg", "com"),
            ("conda", "anaconda", "org"),
            ("crates", "io"),
            ("proxy", "golang", "org"),
        ]
    )
)


def committed_files() -> list[Path]:
    """What is committed or would be: tracked and untracked files that are not ignored."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(name) for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def files() -> list[Path]:
    found = committed_files()
    assert Path("pyproject.toml") in found
    return found


def test_files_are_named_after_what_is_in_them(files: list[Path]) -> None:
    vague = [path for path in files for part in path.parts if VAGUE.fullmatch(part.split(".")[0])]
    assert vague == []


def test_no_file_names_a_package_index(files: list[Path]) -> None:
    naming = [path for path in files if HOSTS.search((ROOT / path).read_text(encoding="utf-8", errors="replace"))]
    assert naming == []


def test_locks_hold_versions_and_hashes_only(files: list[Path]) -> None:
    assert Path("uv.lock") not in files
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert re.findall(r"://|^-.*", text, re.MULTILINE) == []
        pins = re.findall(r"^[A-Za-z0-9].*", text, re.MULTILINE)
        assert pins
        assert all("==" in pin and pin.endswith("\\") for pin in pins)


def test_the_development_lock_contains_the_runtime_lock() -> None:
    def pins(name: str) -> set[str]:
        text = (ROOT / name).read_text(encoding="utf-8")
        return set(re.findall(r"^[A-Za-z0-9][^ ]*==[^ ]+", text, re.MULTILINE))

    assert pins("requirements.lock") < pins("requirements-dev.lock")
