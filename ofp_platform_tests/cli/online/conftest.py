"""A plane whose profile names another pack than the live one."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from ofp_platform_tests.oracle.demo_plane import fill_demo_plane


@pytest.fixture
def next_pack(tmp_path: Path, dsn: str) -> dict[str, str]:
    """A plane of its own, whose profile names a pack with one group more than the live one."""
    home = tmp_path / "home"
    fill_demo_plane(home, dsn)
    shipped = resources.files("ofp_platform.registry").joinpath("packs", "card_payments.yaml").read_text(encoding="utf-8")
    group = """
  - name: account_hour
    version: v1
    key_type: account
    ttl_seconds: 3600
    features:
      - {name: sum_amount_1h, aggregation: sum, events: [card_payment], value: amount_minor, window: 1h}
"""
    pack = tmp_path / "next.yaml"
    pack.write_text(shipped.replace("revision: 1", "revision: 2", 1).rstrip() + "\n" + group, encoding="utf-8")
    profile = resources.files("ofp_platform.cli").joinpath("profiles", "demo.yaml").read_text(encoding="utf-8")
    home.mkdir(exist_ok=True)
    (home / "profile.yaml").write_text(profile.replace("pack: card_payments", f"pack: {pack}"), encoding="utf-8")
    return {"OFP_HOME": str(home), "OFP_DATABASE_URL": dsn}
