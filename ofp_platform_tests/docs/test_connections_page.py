"""docs/connections.md: its Dagster project is loaded and run in a fresh folder, and its variables are those of the program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from ofp_platform.cli.environment import Environment
from ofp_platform.cli.processes import tool_command
from ofp_platform_tests.cli.program import call
from ofp_platform_tests.docs.fenced import blocks

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "connections.md"


def test_a_project_of_ones_own_takes_the_plane_in(tmp_path: Path) -> None:
    (code,) = [block.text for block in blocks(PAGE) if block.language == "python"]
    (tmp_path / "definitions.py").write_text(code, encoding="utf-8")
    (tmp_path / "dagster").mkdir()
    (tmp_path / "home").mkdir()
    assert call("init", OFP_HOME=str(tmp_path / "home")).code == 0
    (tmp_path / "profile.yaml").write_bytes((tmp_path / "home" / "profile.yaml").read_bytes())
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OFP_", "DAGSTER_"))}
    environ = {**clean, "PYTHONPATH": str(ROOT), "OFP_HOME": str(tmp_path / "home"), "DAGSTER_HOME": str(tmp_path / "dagster")}
    command = tool_command("dagster", "asset", "materialize", "-f", "definitions.py", "--select", "weekly_report")
    outcome = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert outcome.returncode == 0, outcome.stderr[-4000:]
    assert "RUN_SUCCESS" in outcome.stdout + outcome.stderr
    graph = "definitions.defs.resolve_asset_graph()"
    keys = f"import definitions; print([key.to_user_string() for key in {graph}.get_all_asset_keys()])"
    listed = subprocess.run([sys.executable, "-c", keys], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    assert {"weekly_report", "features/account_activity_v1", "online/projection"} <= set(re.findall(r"'([^']+)'", listed.stdout))


def test_the_variables_are_those_of_the_program() -> None:
    variables = {f"OFP_{name.upper()}" for name in Environment.model_fields}
    assert set(re.findall(r"`(OFP_[A-Z_]+)`", PAGE.read_text(encoding="utf-8"))) <= variables
