"""Bytes: the same everywhere, and none of them can change unnoticed."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from ofp_platform_tests.torture.byte_identity.byte_flips import Found, Target, flip_all, targets, without_digests
from ofp_platform_tests.torture.byte_identity.environments import (
    MADE_LOCALES,
    PYTHONS,
    Made,
    Surrounding,
    all_at_once,
    find_python,
    make_in,
    make_locales,
    plain,
    problem,
    surroundings,
    took_effect,
)
from ofp_platform_tests.torture.byte_identity.world import World, digests, make_world
from ofp_platform_tests.torture.byte_identity.world import surroundings as seen_here
from ofp_platform_tests.torture.own_database import own_database
from ofp_platform_tests.torture.suite import Run, Suite

FLIPS = 16_000
"""Of each kind of object, at full length."""
EVERYWHERE_FROM = 0.05  # of the full length on: every environment; below, all differences at once in one


def torture(run: Run) -> None:
    """See the module."""
    rng = random.Random(run.seed)
    folder = run.folder / "here"
    folder.mkdir()
    with own_database(run.dsn) as dsn:
        world = make_world(dsn, folder)
        try:
            here = Made(Surrounding("here", "here", {}), digests(world), seen_here())
            _elsewhere(run, rng, here)
            _flipped(run, rng, world)
        finally:
            world.labelled.plane.close()


def _elsewhere(run: Run, rng: random.Random, here: Made) -> None:
    folder = run.folder / "elsewhere"
    folder.mkdir()
    chosen = [all_at_once()]
    if run.size >= EVERYWHERE_FROM:
        chosen = [plain(), *chosen, *surroundings(rng, _locales(run), _pythons(run))]
    made = make_in(chosen, run.dsn, folder)
    for kind in dict.fromkeys(one.surrounding.kind for one in made):
        _claim(run, kind, [one for one in made if one.surrounding.kind == kind], here)
    # what they differ from must be known: this process may have been started in any of them
    before = made[0] if made[0].surrounding.kind == "plain" else here
    others = [one for one in made if one is not before and not one.error]
    blind = [one.surrounding.name for one in others if not _differs(one, before)]
    seen = f"{len(others) - len(blind)} of {len(others)} were" + (f", not {', '.join(blind)}" if blind else "")
    run.fact("... environments that were others indeed", seen, aim="all", reached=not blind)
    run.raw["digests"] = len(here.digests)
    run.raw["environments"] = [{"name": one.surrounding.name, **one.seen} for one in (here, *made)]


def _locales(run: Run) -> Path | None:
    folder = make_locales(run.folder / "locales")
    if folder is None:
        names = ", ".join(f"{language}.{encoding}" for language, encoding in MADE_LOCALES)
        run.fact(f"locales {names}", "not measured: no localedef, or no sources of locales")
    return folder


def _pythons(run: Run) -> dict[str, str]:
    found = {}
    for version in PYTHONS:
        python, reason = find_python(version, install=True)
        if python:
            found[version] = python
        else:
            run.fact(f"Python {version}", f"not measured: {reason}")
    return found


def _differs(made: Made, reference: Made) -> bool:
    # one of the versions is that of the interpreter that runs this
    same_python = made.surrounding.shows == "python" and made.surrounding.python == sys.executable
    return same_python or took_effect(made, reference)


def _claim(run: Run, kind: str, made: list[Made], reference: Made) -> None:
    problems = {one.surrounding.name: found for one in made if (found := problem(one, reference))}
    names = ", ".join(one.surrounding.name.removeprefix(f"{kind} ") for one in made)
    claim = f"{len(reference.digests)} digests under another {kind}" if kind != "all at once" else "digests, all of it at once"
    run.claim(f"{claim}: {names}"[:110], tried=len(made), failed=len(problems), aim="0 failed", of="environments")
    for name, found in problems.items():
        run.fact(f"... {name}", found[:200])


def _flipped(run: Run, rng: random.Random, world: World) -> None:
    kinds: dict[str, list[Target]] = {}
    for target in targets(world):
        kinds.setdefault(target.kind, []).append(target)
    flips = run.count(FLIPS, 60)
    for kind, chosen in kinds.items():
        found = flip_all(chosen, flips, rng)
        size = sum(target.path.stat().st_size for target in chosen)
        every = f"every one of {size:,}" if flips >= size else f"of {size:,}"
        run.claim(f"{kind}: a flipped byte, {every}", tried=found.flips, failed=found.missed + found.crashed, aim="0 failed")
        run.claim(f"{kind}: cut short or made longer", tried=found.cuts, failed=found.cuts_missed, aim="0 failed")
        _examples(run, kind, found)
    _control(run, kinds, rng)


def _control(run: Run, kinds: dict[str, list[Target]], rng: random.Random) -> None:
    """Without the digests the same verification must miss flips, or it was not the digests that found them."""
    flips = run.count(600, 60)
    for kind in ("archive segment", "stored snapshot", "dataset file"):
        with without_digests():
            found = flip_all(kinds[kind], flips, rng)
        seen = f"{found.missed:,} of {found.flips:,} not found"
        run.fact(f"... {kind}, without the check of its digest", seen, aim="> 0", reached=found.missed > 0)


def _examples(run: Run, kind: str, found: Found) -> None:
    if found.examples:
        name, what = found.examples[0]
        run.fact("... the first of them", f"seed {run.seed}: {name}, {what}")
        run.raw[f"not found, {kind}"] = found.examples[:500]


SUITE = Suite("bytes", "Bytes: the same everywhere, and none can change unnoticed", torture)
