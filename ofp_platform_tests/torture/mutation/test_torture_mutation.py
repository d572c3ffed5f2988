"""Mutants of a tiny module: the one that matters is killed, the one that changes nothing survives; and the table is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ofp_platform_tests.torture.mutation.mutants import Mutant, changed_line, mutants_of, mutate
from ofp_platform_tests.torture.mutation.runs import DEAD, ROOT, Outcome, Target, run
from ofp_platform_tests.torture.mutation.suite import Tally, drawn, estimate
from ofp_platform_tests.torture.mutation.table import GROUPS, LEFT_OUT, TOO_LONG

SOURCE = '''
"""Nothing below zero."""

from __future__ import annotations

from functools import cache


@cache
def clamp(value: int | None, least: int = 0) -> int:
    if value is None:
        raise ValueError(f"no value, only {least + 1}")
    if value < least:
        return least
    steps: int | str = 0
    while steps < value:
        steps += 1
    return steps
'''
TESTS = """
from tiny_clamp import clamp

def test_clamp():
    assert [clamp(value) for value in (-2, 0, 3)] == [0, 0, 3]
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    (tmp_path / "tiny_clamp.py").write_text(SOURCE)
    (tmp_path / "test_tiny_clamp.py").write_text(TESTS)
    (tmp_path / "server").mkdir()
    return tmp_path


def tried(tiny: Path, mutants: list[Mutant]) -> list[Outcome]:
    target = Target("tiny_clamp", tiny / "tiny_clamp.py", (str(tiny / "test_tiny_clamp.py"),), tuple(mutants))
    return run([target], tiny / "server", paths=[str(tiny)])


def test_a_change_that_matters_is_killed_and_one_that_does_not_survives(tiny: Path) -> None:
    # value < least: at equality both branches return the same, so <= is the same program, and > another one
    wanted = (
        (13, "ReplaceComparisonOperator_Lt_LtE", 0),
        (13, "ReplaceComparisonOperator_Lt_Gt", 0),
        (17, "NumberReplacer", 1),  # steps += 0: it never ends
    )
    found = tried(tiny, [one for one in mutants_of(tiny / "tiny_clamp.py") if (one.line, one.operator, one.index) in wanted])
    by_operator = {outcome.operator: outcome for outcome in found}
    survivor = by_operator["ReplaceComparisonOperator_Lt_LtE"]
    assert (survivor.verdict, survivor.line) == ("survived", 13)
    assert (survivor.before, survivor.after) == ("if value < least:", "if value <= least:")
    killed = by_operator["ReplaceComparisonOperator_Lt_Gt"]
    assert killed.verdict == "killed"
    assert killed.failed is not None
    assert killed.failed.endswith("::test_clamp")
    assert by_operator["NumberReplacer"].verdict == "timeout"


def test_tests_that_fail_anyway_say_nothing_of_mutants(tiny: Path) -> None:
    (tiny / "test_tiny_clamp.py").write_text(TESTS.replace("[0, 0, 3]", "[9, 9, 9]"))
    (found,) = tried(tiny, mutants_of(tiny / "tiny_clamp.py")[:2])
    assert found.verdict == "error"
    assert "AssertionError" in (found.failed or "")


def test_tests_that_fail_in_forks_only_say_nothing_either(tiny: Path) -> None:
    test = tiny / "test_tiny_clamp.py"
    test.write_text(f"{TESTS}    seen = __import__('pathlib').Path(__file__).with_name('seen')\n    seen.touch(exist_ok=False)\n")
    (found,) = tried(tiny, mutants_of(tiny / "tiny_clamp.py")[:0])
    assert found.verdict == "error"
    assert "without a mutant" in (found.failed or "")


def test_what_cannot_matter_is_left_out_and_nothing_else(tiny: Path) -> None:
    path = tiny / "tiny_clamp.py"
    mutants = mutants_of(path)
    assert {one.line for one in mutants} == {10, 11, 13, 15, 16, 17}  # neither the decorator nor the message
    sources = [mutate(path, one) for one in mutants]
    assert None not in sources
    changes = {changed_line(path, source)[2] for source in sources if source is not None}
    assert "def clamp(value: int | None, least: int = 1) -> int:" in changes  # the default, not the annotation
    assert not any("int | None" not in change for change in changes if change.startswith("def "))
    assert not any("int | str" not in change for change in changes if change.startswith("steps:"))
    assert len(sources) == len(set(sources))


def test_every_module_of_the_kernel_is_in_the_table_and_every_test_is_there() -> None:
    named = {module for table in GROUPS.values() for module in table}
    kernel = {f"ofp_platform.kernel.{path.stem}" for path in (ROOT / "ofp_platform/kernel").glob("[!_]*.py")}
    assert kernel == {module for module in named if ".kernel." in module} | set(LEFT_OUT)
    for table in GROUPS.values():
        for module, tests in table.items():
            assert (ROOT / f"{module.replace('.', '/')}.py").exists()
            assert tests
            assert all((ROOT / test).exists() for test in tests)
    for test in TOO_LONG:
        name, _, function = test.partition("::")
        assert f"def {function}(" in (ROOT / name).read_text()


def test_a_sample_is_drawn_in_proportion_and_again_by_its_seed() -> None:
    tables = {"g": dict.fromkeys(("ofp_platform.vocabulary.times", "ofp_platform.vocabulary.decimals"), ())}
    one, same, other = (drawn(tables, 100, 5, seed) for seed in (1, 1, 2))
    assert one == same != other
    assert abs(sum(len(target.mutants) for _, target in one) - 100) <= 1
    everything = drawn(tables, 10**6, 5, 1)
    assert [len(target.mutants) for _, target in everything] == [mutants for mutants, _ in everything]


def test_the_estimate_weighs_modules_by_their_mutants() -> None:
    small, large = Tally(100, 10, 10, 10, 2), Tally(300, 10, 10, 5, 0)
    share, half = estimate([small, large])
    assert share == pytest.approx(0.25 * 1.0 + 0.75 * 0.5)
    assert half == pytest.approx(1.96 * 0.75 * (0.5 * 0.5 / 9 * (1 - 10 / 300)) ** 0.5)
    share, half = estimate([Tally(10, 10, 10, 9, 0)])  # all of them tried
    assert (round(share, 9), half) == (0.9, 0.0)
    assert estimate([Tally(10, 0, 0, 0, 0)]) == (0.0, 1.0)
    assert json.dumps(vars(small))
    assert set(DEAD) == {"killed", "timeout"}
