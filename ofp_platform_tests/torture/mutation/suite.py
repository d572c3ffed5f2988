"""Mutation testing: of the changes that can be made to the code that decides values, how many do the tests find?

The modules of `mutation_table` (kernel, canonical bytes, basis, horizon) are changed one place at a time (`mutation_mutants`
says how, and which classes of changes are left out), and the tests of each module run against every change
(`mutation_server`). A mutant is killed when a test fails, when the module cannot be imported any more, or when a test takes far
more processor time than it should. What survives is listed in the raw results, with file, line and change.

At size 1 some 1,200 mutants are drawn at random, from every module in proportion; the rows say how many of how many, with a 95%
confidence interval. A size of 10 tries them all, in about ten times the time.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from ofp_platform_tests.torture.mutation.mutants import mutants_of
from ofp_platform_tests.torture.mutation.runs import DEAD, ROOT, Outcome, Target, run
from ofp_platform_tests.torture.mutation.table import GROUPS
from ofp_platform_tests.torture.suite import Run, Suite

FULL = 1_200
LEAST_PER_MODULE = 12
AIM = 0.9
JOBS = 2


@dataclass(frozen=True)
class Tally:
    """One module: how many mutants it has, and how those that were tried fared. `tried` are those that are programs."""

    mutants: int
    drawn: int
    tried: int
    killed: int
    timeouts: int

    @classmethod
    def of(cls, mutants: int, outcomes: Sequence[Outcome]) -> Tally:
        verdicts = [outcome.verdict for outcome in outcomes]
        timeouts = verdicts.count("timeout")
        dead = sum(verdicts.count(verdict) for verdict in DEAD)
        return cls(mutants, len(verdicts), dead + verdicts.count("survived"), dead, timeouts)

    def __str__(self) -> str:
        survived = self.tried - self.killed
        text = f"{self.tried} of {self.mutants}: {self.killed} killed ({self.timeouts} by time), {survived} survived"
        return text if not self.tried else f"{text}, {self.killed / self.tried:.1%}"


def estimate(tallies: Sequence[Tally]) -> tuple[float, float]:
    """The share of killed mutants among all of these modules, and half the width of its 95% confidence interval.

    Each module weighs as much as it has mutants that are programs; what was tried in full adds nothing to the width.
    """
    weights = [tally.mutants * tally.tried / tally.drawn if tally.drawn else 0.0 for tally in tallies]
    whole = sum(weights)
    if not whole:
        return 0.0, 1.0
    share, variance = 0.0, 0.0
    for tally, weight in zip(tallies, weights, strict=True):
        if not tally.tried:
            continue
        own = tally.killed / tally.tried
        share += weight / whole * own
        left = 1 - tally.drawn / tally.mutants
        variance += (weight / whole) ** 2 * left * own * (1 - own) / max(1, tally.tried - 1)
    return share, 1.96 * sqrt(variance)


def drawn(tables: Mapping[str, Mapping[str, tuple[str, ...]]], count: int, least: int, seed: int) -> list[tuple[int, Target]]:
    """About `count` mutants in proportion to those of each module, `least` of each at least; with how many each module has."""
    found = []
    for table in tables.values():
        for module, tests in table.items():
            path = ROOT / f"{module.replace('.', '/')}.py"
            found.append((module, path, tests, mutants_of(path)))
    whole = sum(len(mutants) for *_, mutants in found)
    targets = []
    for module, path, tests, mutants in found:
        share = min(len(mutants), max(least, round(count * len(mutants) / whole)))
        chosen = random.Random(f"{seed} {module}").sample(mutants, share)
        targets.append((len(mutants), Target(module, path, tests, tuple(sorted(chosen)))))
    return targets


def told(share: float, half: float) -> str:
    """As in `93.1% +- 1.2%`."""
    return f"{share:.1%} ± {half:.1%}" if half else f"{share:.1%}"


def torture(run_: Run) -> None:
    """Draw, try, count."""
    targets = drawn(GROUPS, run_.count(FULL), run_.count(LEAST_PER_MODULE), run_.seed)
    outcomes = run([target for _, target in targets], run_.folder, jobs=JOBS)
    tallies = {
        target.module: Tally.of(mutants, [outcome for outcome in outcomes if outcome.module == target.module])
        for mutants, target in targets
    }
    broken = {outcome.module: outcome.failed or "" for outcome in outcomes if outcome.verdict == "error"}
    for module, tally in tallies.items():
        name = module.removeprefix("ofp_platform.")
        if module in broken:
            run_.fact(name, "its tests fail without a mutant", aim="they pass", reached=False)
        else:
            run_.fact(name, str(tally))
    for group, table in GROUPS.items():
        share, half = estimate([tallies[module] for module in table])
        run_.fact(f"mutants killed: {group}", told(share, half), aim=f">= {AIM:.0%}", reached=share >= AIM)
    share, half = estimate(list(tallies.values()))
    tried, mutants = sum(tally.tried for tally in tallies.values()), sum(tally.mutants for tally in tallies.values())
    run_.fact(
        f"mutants killed: all, {tried:,} of {mutants:,} tried", told(share, half), aim=f">= {AIM:.0%}", reached=share >= AIM
    )
    survivors = [outcome for outcome in outcomes if outcome.verdict == "survived"]
    run_.raw["survivors"] = [
        {
            "file": f"{outcome.module.replace('.', '/')}.py",
            "line": outcome.line,
            "before": outcome.before,
            "after": outcome.after,
            "operator": outcome.operator,
        }
        for outcome in sorted(survivors, key=lambda outcome: (outcome.module, outcome.line))
    ]
    run_.raw["broken"] = broken
    run_.raw["modules"] = {module: vars(tally) for module, tally in tallies.items()}


SUITE = Suite("mutation", "Mutation testing of kernel, canonical bytes, basis and horizon", torture)
