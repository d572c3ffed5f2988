"""docs/scaling.md says what its program computes."""

from __future__ import annotations

import sys

import pytest

from benchmarks import scaling
from benchmarks.scaling import LOADS, PAGE, STORES, TABLES, filled, main, store_cores, store_month


def test_the_page_has_the_figures_of_its_program() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page) == page, "python -m benchmarks.scaling"
    assert all(f"<!-- {name}: python -m benchmarks.scaling -->" in page for name in TABLES)


def test_a_page_with_another_figure_is_told_and_repaired(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    page = PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(scaling, "PAGE", type(PAGE)(str(tmp_path)) / "scaling.md")
    monkeypatch.setattr(scaling, "TABLES", {name: lambda: "| table |\n" for name in TABLES})
    scaling.PAGE.write_text(page, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["scaling", "--check"])
    with pytest.raises(SystemExit, match="other figures"):
        main()
    monkeypatch.setattr(sys, "argv", ["scaling"])
    main()
    assert scaling.PAGE.read_text(encoding="utf-8").count("| table |") == len(TABLES)
    monkeypatch.setattr(sys, "argv", ["scaling", "--check"])
    with pytest.raises(SystemExit, match="0"):
        main()


def test_ten_times_the_load_is_ten_times_the_machines() -> None:
    small, large = LOADS
    for store in STORES:
        assert store_cores(large, store) == pytest.approx(10 * store_cores(small, store))
        assert store_month(large, store) == pytest.approx(10 * store_month(small, store))


def test_bytes_by_hand() -> None:
    load = LOADS[0]
    events = 100_000 / 3 * 38 * 24 * 3600
    assert scaling.state_bytes(load) == pytest.approx(events * 66 + 100_000_000 * 200)
    assert scaling.log_bytes(load) == 42_000_000
