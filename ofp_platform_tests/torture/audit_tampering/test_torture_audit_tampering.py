"""Tampering with the audit log at a small size; and that a tamper which nobody finds is told."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from ofp_platform.audit import tree_fold
from ofp_platform_tests.torture.audit_tampering.suite import SUITE
from ofp_platform_tests.torture.audit_tampering.tampers import TAMPERS


def test_every_tamper_of_a_short_run_is_found_at_its_place(embedded_server: str, tmp_path: Path) -> None:
    figures = SUITE.run(size=0.002, seed=7, dsn=embedded_server, folder=tmp_path)
    assert [(row.claim, row.seen, figures.raw) for row in figures.rows if row.reached is False] == []
    assert len([row for row in figures.rows if row.reached]) == len(TAMPERS) + 4


def test_a_verifier_without_a_check_is_found_out(embedded_server: str, tmp_path: Path) -> None:
    with patch.object(tree_fold, "record_faults", lambda page, view: iter(())):
        figures = SUITE.run(size=0.0002, seed=8, dsn=embedded_server, folder=tmp_path)
    missed = {row.claim for row in figures.rows if row.reached is False}
    assert {"records edited, not found at their place", "records deleted, not found at their place"} <= missed
    assert "leaves deleted, not found at their place" not in missed
    assert figures.raw["missed"]
