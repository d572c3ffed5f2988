"""`ofp registry`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from ofp_platform_tests.cli.program import Ofp

SHIPPED = resources.files("ofp_platform.registry").joinpath("packs", "card_payments.yaml").read_text(encoding="utf-8")


def written(path: Path, old: str, new: str) -> str:
    """The shipped pack with one thing changed, in a file."""
    assert old in SHIPPED
    path.write_text(SHIPPED.replace(old, new, 1), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("pack", ["card_payments", "handbook"])
def test_shipped_packs_are_well(ofp: Ofp, pack: str) -> None:
    outcome = ofp("registry", "check", pack)
    assert outcome.code == 0
    assert outcome.out.startswith(f"{pack} revision 1: ")


def test_a_bad_pack_is_refused_with_file_line_and_field(ofp: Ofp, tmp_path: Path) -> None:
    bad = written(tmp_path / "bad.yaml", "count, events: [card_payment], window: 5m", "cuont, window: -1s")
    line = 1 + SHIPPED[: SHIPPED.index("window: 5m")].count("\n")
    said = ofp("registry", "check", bad).refused()
    assert f"{bad}:{line}: groups[0].features[0].aggregation: " in said
    assert f"{bad}:{line}: groups[0].features[0].window: " in said


def test_yaml_that_does_not_parse_and_a_file_that_is_not_there(ofp: Ofp, tmp_path: Path) -> None:
    (tmp_path / "torn.yaml").write_text("pack_id: [")
    assert f"{tmp_path}/torn.yaml:" in ofp("registry", "check", str(tmp_path / "torn.yaml")).refused()
    assert "No such file" in ofp("registry", "check", str(tmp_path / "none.yaml")).refused()


def test_a_group_changed_under_its_version_is_refused_by_the_store(on_plane: Ofp, tmp_path: Path) -> None:
    assert "0 new, none redefined" in on_plane("registry", "check", "card_payments", "--store").out
    changed = written(tmp_path / "changed.yaml", "window: 5m", "window: 6m")
    assert on_plane("registry", "check", changed).code == 0
    assert "account_activity" in on_plane("registry", "check", changed, "--store").refused()


def test_diff_says_what_changed(ofp: Ofp, tmp_path: Path) -> None:
    assert ofp("registry", "diff", "card_payments", "card_payments").out == "the packs mean the same\n"
    changed = ofp("registry", "diff", "card_payments", written(tmp_path / "a.yaml", "window: 5m", "window: 6m"))
    assert (changed.code, "account_activity" in changed.out) == (1, True)
    old, new = (f"- name: account_activity\n    version: {version}" for version in ("v1", "v2"))
    renamed = written(tmp_path / "b.yaml", old, new)
    assert ofp("registry", "diff", "card_payments", renamed).code == 0


def test_show_names_every_feature_whole(ofp: Ofp) -> None:
    shown = ofp("registry", "show").out
    assert "account_activity:v1  of the account, stale after 604800 s" in shown
    assert "declined_ratio_24h" in shown
    assert "needs request_context: amount_minor (integer)" in shown
    assert "…" not in shown
    assert "risk_30d" in ofp("registry", "show", "handbook").out
