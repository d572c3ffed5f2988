"""The page of figures shows what the published raw results say, and nothing else."""

from __future__ import annotations

import json

import pytest

from benchmarks.page import PAGE, PUBLISHED, page, tables


def test_the_page_is_made_from_the_published_results() -> None:
    text = PAGE.read_text()
    assert page(text, tables()) == text, "run `make figures`"


def test_every_published_run_says_what_it_was_run_on() -> None:
    runs = [json.loads(path.read_text()) for path in PUBLISHED.glob("*.json")]
    assert {run["kind"] for run in runs} == {"bench", "torture"}
    for run in runs:
        assert run["rows"], run["suite"]
        assert run["machine"]["cpu"], run["suite"]
        assert run["commit"], run["suite"]
        assert run["raw"], run["suite"]


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="marks"):
        page("nothing", "")
