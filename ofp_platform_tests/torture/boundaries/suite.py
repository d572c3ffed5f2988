"""Boundaries: questions exactly on the edges of windows and on ties, three kernels against the naive oracle.

A query is one group of features of one key, asked at one as-of with one knowledge; all of its values are compared. One case (a
key with its events and questions) alone, by the seed that a failure prints:
`python -m ofp_platform_tests.torture.boundaries.suite SEED`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import get_context
from typing import Any

from ofp_platform.registry.aggregations import Aggregation
from ofp_platform_tests.oracle import fold
from ofp_platform_tests.torture.boundaries.cases import Case, boundary_of, make_case
from ofp_platform_tests.torture.boundaries.paths import Found, Paths, Planted, Values
from ofp_platform_tests.torture.random_worlds.packs import selections
from ofp_platform_tests.torture.suite import Run, Suite

QUERIES = 1_000_000
_SEEDS = 2**24
_PROCESSES = 2
_FEW = 20_000
_SHOWN = 20
_PLANTED = {
    "windows closed on the left": Planted(left=1),
    "windows open on the right": Planted(right=1),
    "ties the wrong way round": Planted(ties_reversed=True),
}
_PLANTED_QUERIES = 1_500
_PATHS = ("served from chunks", "columns", "columns of rows that know a part", "rebuilt rows that know a part")
_BOUNDARIES = {
    "left": "with an event exactly at the left edge (outside)",
    "right": "with an event exactly at the right edge (inside)",
    "tie": "with events of equal times in a window",
    "decides": "where such a tie decides a first or a last",
    "beside": "with an event a microsecond beside an edge",
}
_Plans = dict[tuple[str, str], Paths]


@dataclass
class Held:
    """What came of some cases: counts, and of each that differed its seed and what did; `by_path` counts differing cases."""

    counts: Counter[str] = field(default_factory=Counter)
    by_path: Counter[str] = field(default_factory=Counter)
    differing: list[tuple[int, str]] = field(default_factory=list)


def hold_case(case: Case, plans: _Plans, planted: Planted, held: Held) -> None:
    """Ask everything that a case asks, on every path."""
    key = case.pack.registry.digest, case.key_type
    if key not in plans:
        plans[key] = Paths(case.pack, case.key_type, planted)
    paths, case = plans[key], planted.spoilt(case)
    wanted = [[_oracle(case, place, row) for place in range(len(case.groups))] for row in range(len(case.moments))]
    served = paths.serve(case, case.moments)
    known = paths.known_evaluations(case)
    differing: dict[str, str] = {}
    for row, moment in enumerate(case.moments):
        for place, group in enumerate(case.groups):
            held.counts["queries"] += 1
            held.counts["values"] += len(wanted[row][place][0])
            held.counts += boundary_of(case, place, moment)
            held.counts.update({f"aggregation {part['aggregation']}": 1 for part in selections(dict(group))})
            where = f"{group['name']} {group['version']} as of {fold.time_text(moment.as_of)}, level {moment.level}"
            _compare(differing, _PATHS[0], where, served[row][place], wanted[row][place])
            _compare(differing, _PATHS[3], where, known[row][place], _windowed(group, wanted[row][place]))
    for path, made in ((_PATHS[1], paths.column_values(case)), (_PATHS[2], paths.known_column_values(case))):
        _compare_columns(differing, path, case, made, wanted)
    for path, what in differing.items():
        held.by_path[path] += 1
        held.differing.append((case.seed, f"{path}: {what}"))


def _oracle(case: Case, group: int, row: int) -> Found:
    moment, content = case.moments[row], case.groups[group]
    events = case.known(moment.level)
    last = fold.last_update(content, events, moment.as_of)
    values = fold.group_features(content, events, moment.as_of, case.context)
    return values, None if last is None else fold.time_text(last)


def _windowed(group: Any, found: Found) -> Found:
    """Without the on-demand features, which no kernel computes."""
    names = {feature["name"] for feature in group["features"]}
    return {name: value for name, value in found[0].items() if name in names}, found[1]


def _compare(differing: dict[str, str], path: str, where: str, found: Found, wanted: Found) -> None:
    if found != wanted and path not in differing:
        differing[path] = f"{where}: {found}, the oracle says {wanted}"


def _compare_columns(
    differing: dict[str, str], path: str, case: Case, made: list[list[Values]], wanted: list[list[Found]]
) -> None:
    for row, moment in enumerate(case.moments):
        for place, group in enumerate(case.groups):
            expected = _windowed(group, wanted[row][place])[0]
            where = f"{group['name']} {group['version']} as of {fold.time_text(moment.as_of)}, level {moment.level}"
            if made[row][place] != expected and path not in differing:
                differing[path] = f"{where}: {made[row][place]}, the oracle says {expected}"


def hold_cases(first: int, step: int, queries: int, planted: Planted) -> Held:
    """Cases of the seeds first, first + step, ... until that many queries were asked."""
    held, plans = Held(), _Plans()
    for seed in count(first, step):
        if held.counts["queries"] >= queries:
            return held
        held.counts["cases"] += 1
        try:
            hold_case(make_case(seed), plans, planted, held)
        except Exception as error:
            held.differing.append((seed, f"{type(error).__name__}: {error}"))
            held.counts["queries"] += 1  # a kernel that always raises must come to an end as well
    raise AssertionError("unreachable")


def torture(run: Run) -> None:
    """See the module."""
    first, queries = run.seed * _SEEDS, run.count(QUERIES)
    processes = 1 if queries < _FEW else _PROCESSES
    share = -(-queries // processes)
    if processes == 1:
        found = [hold_cases(first, 1, share, Planted())]
    else:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            tasks = [pool.submit(hold_cases, first + place, processes, share, Planted()) for place in range(processes)]
            found = [task.result() for task in tasks]
    counts = sum((one.counts for one in found), Counter())
    differing = sorted(pair for one in found for pair in one.differing)
    for seed, what in differing[:_SHOWN]:
        print(f"case {seed}: {what[:2_000]}\n  again: python -m ofp_platform_tests.torture.boundaries.suite {seed}", flush=True)
    asked = counts["queries"]
    run.claim(
        "Queries on which serving, columns, known rows and oracle agree", tried=asked, failed=len(differing), aim="0 failed"
    )
    run.fact("  values compared on each path", f"{counts['values']:,}")
    on_one = counts["boundary"] / asked
    run.fact("  exactly on an edge of a window, or a tie", f"{on_one:.1%}", aim=">= 30%", reached=on_one >= 0.3)
    for name, words in _BOUNDARIES.items():
        run.fact(f"  {words}", f"{counts[name]:,}", aim="some", reached=counts[name] > 0)
    aggregations = sorted(name.removeprefix("aggregation ") for name in counts if name.startswith("aggregation "))
    every = sorted(set(Aggregation) - {Aggregation.RATIO})
    run.fact(
        "  aggregations asked for, ratios of them too",
        f"{len(aggregations)}",
        aim=f"{len(every)}",
        reached=aggregations == every,
    )
    for words, planted in _PLANTED.items():
        seen = hold_cases(first, 1, _PLANTED_QUERIES, planted).by_path
        blind = [path for path in _PATHS if not seen[path]]
        run.claim(f"Paths that do not show {words}", tried=len(_PATHS), failed=len(blind), aim="0 failed", of="paths")
        run.raw[words] = dict(seen)
    run.raw |= {"counts": dict(counts), "differing": differing}


SUITE = Suite("boundaries", "Boundaries: window edges and ties on every path against the oracle", torture)


def main() -> None:
    """Repeat cases by their seeds; exit 1 when one differs."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("seeds", nargs="+", type=int, metavar="SEED", help="as a failure printed it")
    held = Held()
    for seed in parser.parse_args().seeds:
        case, before = make_case(seed), len(held.differing)
        hold_case(case, {}, Planted(), held)
        what = "; ".join(what for _, what in held.differing[before:])
        print(f"case {seed}: {len(case.events)} events, {len(case.moments)} questions: {what or 'all agree'}")
    if held.differing:
        sys.exit(1)


if __name__ == "__main__":
    main()
