"""The shipped dagster.yaml is written anew as long as nobody changed it; one of somebody's own stays."""

from __future__ import annotations

from pathlib import Path

from ofp_platform.cli.up.dagster_instance import write_instance


def test_the_shipped_one_follows_the_release(tmp_path: Path) -> None:
    file = tmp_path / "dagster.yaml"
    assert write_instance(tmp_path, "first")
    assert write_instance(tmp_path, "first")
    assert write_instance(tmp_path, "second")
    assert file.read_text() == "second"


def test_one_of_somebody_s_own_stays(tmp_path: Path) -> None:
    file = tmp_path / "dagster.yaml"
    file.write_text("mine")
    assert not write_instance(tmp_path, "shipped")
    assert file.read_text() == "mine"
    file.unlink()
    assert write_instance(tmp_path, "shipped")
    file.write_text("shipped, and then changed")
    assert not write_instance(tmp_path, "newer")
    assert file.read_text() == "shipped, and then changed"
