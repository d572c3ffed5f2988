"""The words check counts what it says, fails past each bound, and does not pass where there is nothing to count."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "words_check.py"
PLAIN = "".join(f"def read_{number}(path, limit):\n    record = path\n    return record\n\n\n" for number in range(40))


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, folder, *arguments], capture_output=True, text=True, check=False)


def module(folder: Path, text: str) -> Path:
    (folder / "module.py").write_text(text)
    return folder


def test_plain_names_pass(tmp_path: Path) -> None:
    result = check(module(tmp_path, PLAIN))
    assert result.returncode == 0, result.stderr
    assert "bare words: 0 of 160 names, 0.00%" in result.stdout


@pytest.mark.parametrize("word", ["chosen", "folded", "_kept", "one", "mine"])
def test_bare_words_fail(tmp_path: Path, word: str) -> None:
    result = check(module(tmp_path, PLAIN + f"def read({word}):\n    for {word} in (1, 2):\n        pass\n    {word} = 3\n"))
    assert result.returncode == 1
    assert "bare words: 3 of 164 names" in result.stdout


@pytest.mark.parametrize("word", ["chosen_rows", "seed", "need", "Chosen", "CHOSEN", "__found__", "self"])
def test_names_that_are_no_bare_words(tmp_path: Path, word: str) -> None:
    result = check(module(tmp_path, PLAIN + f"def read({word}):\n    for {word} in (1, 2):\n        pass\n"))
    assert result.returncode == 0, result.stdout


def test_too_many_what_docstrings_fail(tmp_path: Path) -> None:
    documented = "".join(f'def number_{number}():\n    """What a number is."""\n\n\n' for number in range(20))
    assert check(module(tmp_path, documented)).returncode == 1
    assert check(module(tmp_path, documented.replace('"""What', '"""Whatever', 1))).returncode == 0


def test_too_many_founds_fail(tmp_path: Path) -> None:
    plenty = PLAIN * 60
    assert check(module(tmp_path, plenty + "found = 1\n" * 19)).returncode == 0
    assert check(module(tmp_path, plenty + "found = 1\n" * 20)).returncode == 1


def test_nothing_to_count_is_no_pass(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        result = check(folder)
        assert result.returncode == 2
        assert "nothing to hold to plain words" in result.stderr


def test_the_places_are_named(tmp_path: Path) -> None:
    result = check(module(tmp_path, PLAIN + "chosen = 1\n"), "--list")
    assert f"{tmp_path / 'module.py'}:{PLAIN.count(chr(10)) + 1}: chosen" in result.stdout


def test_the_package_passes() -> None:
    result = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
