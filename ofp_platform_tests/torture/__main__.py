"""`python -m ofp_platform_tests.torture [SUITE ...]`: run suites, print their tables, keep their raw results."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import secrets
import sys
import tempfile
from pathlib import Path

import psycopg

import ofp_platform_tests.torture as package
from benchmarks.figures import FOLDER
from ofp_platform.storage.embedded import SUPERUSER, as_role, start_embedded, stop_embedded
from ofp_platform_tests.torture.suite import Suite


def suites() -> dict[str, Suite]:
    """Every suite of this folder, by its name."""
    found: dict[str, Suite] = {}
    for module in pkgutil.iter_modules(package.__path__):
        if module.ispkg:
            suite = importlib.import_module(f"{package.__name__}.{module.name}.suite").SUITE
            found[suite.name] = suite
    return dict(sorted(found.items()))


def main() -> None:
    """Run what was asked for; exit 1 when anything failed."""
    known = suites()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"all, or some of: {', '.join(known)}")
    parser.add_argument("--size", type=float, default=1.0, help="1 is the full length; 0.01 a hundredth of it")
    parser.add_argument("--seed", type=int, help="repeat a run: the seed that it printed")
    parser.add_argument("--results", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    if unknown := set(arguments.suites) - set(known):
        parser.error(f"no suite named {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ofp-torture-") as folder:
        home = Path(folder) / "postgres"
        dsn = as_role(start_embedded(home), SUPERUSER)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")  # processes are killed here, not the machine
            connection.execute("SELECT pg_reload_conf()")
        try:
            for name in arguments.suites or known:
                figures = known[name].run(size=arguments.size, seed=seed, dsn=dsn)
                figures.write(arguments.results)
                print(figures.table(), flush=True)
                failed += [name] * figures.has_missed_aim
        finally:
            stop_embedded(home)
    if failed:
        sys.exit(f"failed: {', '.join(failed)} (again: --seed {seed})")


if __name__ == "__main__":
    main()
