"""docs/security.md and docs/regulation.md: each row names a test, and each test that is named exists; the site has every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TEST = re.compile(r"`(ofp_platform_tests/[a-z_/]+\.py)(?:::(test_[a-z0-9_]+))?`")


@pytest.mark.parametrize("page", ["security.md", "regulation.md"])
def test_every_row_names_a_test_that_exists(page: str) -> None:
    rows = [line for line in (DOCS / page).read_text(encoding="utf-8").splitlines() if "ofp_platform_tests/" in line]
    assert len(rows) > 10
    for row in rows:
        for path, name in TEST.findall(row):
            content = (ROOT / path).read_text(encoding="utf-8")
            assert not name or re.search(rf"^(?:async )?def {name}\(", content, re.MULTILINE), f"{path}::{name}"
    table = [line for line in (DOCS / page).read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    head = "threat" if page == "security.md" else "demand"
    first = next(number for number, line in enumerate(table) if line.startswith(f"| {head} |"))
    assert [line for line in table[first + 1 :] if not TEST.search(line)] == []


def test_the_site_has_every_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = YAML(typ="safe").load(text)["nav"]
    named = {page for section in nav for pages in section.values() for entry in pages for page in entry.values()}
    assert {path.name for path in DOCS.glob("*.md")} <= named
    assert "font: false" in text
