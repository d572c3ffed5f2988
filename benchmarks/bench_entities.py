"""Features of entities beside features of keys: reads of one client through the library, and the fold of links.

`python -m benchmarks.bench_entities --transactions 300000`: the handbook's pack, once as it is and once with the group of
accounts resolving identities, over the same simulated transactions. A twentieth of the accounts belong to pairs, one entity has
ten members. Reads are answered by turns; each names an account and a merchant, as of the newest event.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np

from benchmarks.bench_projection import project
from benchmarks.figures import Figures, Row
from benchmarks.world import ACCOUNTS, MERCHANTS, PINS, fill, fresh_database, profile, request
from ofp_platform.online.plane import Plane
from ofp_platform.online.serving.reader import Reader
from ofp_platform.storage.embedded import stop_embedded
from ofp_platform.vocabulary.times import format_time

_GROUP = "  - name: account_activity\n    version: v1\n    key_type: account\n"
_PAIRS, _RING = ACCOUNTS // 40, 10
_TIME = "2018-04-01T00:00:00Z"


def account(number: int) -> str:
    """The id of an account of the world."""
    return f"customer-{number:07d}"


def links(pairs: int, ring: int) -> list[dict[str, object]]:
    """Links of the first accounts: pairs, then one ring whose members belong to its first."""
    made = [(account(2 * pair + 1), account(2 * pair)) for pair in range(pairs)]
    first = 2 * pairs
    made += [(account(first + number), account(first)) for number in range(1, ring)]
    return [
        {
            "event_id": f"link-{number}",
            "event_type": "identity_link",
            "schema_version": "v1",
            "ts_utc": _TIME,
            **PINS.wire(),
            "payload": {"key_type": "account", "member": member, "canonical": canonical, "effective_time_utc": _TIME},
        }
        for number, (member, canonical) in enumerate(made)
    ]


def opened(folder: Path, dsn: str, *, resolved: bool) -> Plane:
    """The plane of the world, its group of accounts resolving or not."""
    text = (files("ofp_platform.registry.packs") / "handbook.yaml").read_text()
    if _GROUP not in text:
        raise SystemExit("the handbook's pack does not declare the group of accounts as this benchmark knows it")
    pack = folder / f"entities-{resolved}.yaml"
    pack.write_text(text.replace(_GROUP, f"{_GROUP}    identity: resolved\n") if resolved else text)
    changes = {"pack": str(pack), "context_stream": "links"}
    return Plane.open(profile("entities", folder).model_copy(update=changes), dsn)


def seconds_of(reader: Reader, bodies: list[bytes]) -> list[float]:
    """Seconds of each answer, one after the other."""
    seen = []
    for body in bodies:
        began = time.perf_counter()
        reader.answer(body)
        seen.append(time.perf_counter() - began)
    return seen


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=300_000)
    parser.add_argument("--reads", type=int, default=300, help="of each kind in a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    began = time.perf_counter()
    rng = np.random.default_rng(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dsns = {resolved: fresh_database(folder, f"entities_{resolved}".lower()) for resolved in (False, True)}
        try:
            with opened(folder, dsns[False], resolved=False) as plain, opened(folder, dsns[True], resolved=True) as joined:
                rates = {}
                for resolved, plane in ((False, plain), (True, joined)):
                    fill(plane, arguments.transactions)
                    if resolved:
                        said = links(_PAIRS, _RING)
                        plane.context_log(create=True).append(said)
                        start_time = time.perf_counter()
                        plane.graph_projector().drain()
                        fold_seconds = time.perf_counter() - start_time
                    records, seconds = project(plane, 50_000)
                    rates[resolved] = records / seconds
                row = joined.known_live()
                as_of = row.watermark or 0
                readers = {False: plain.reader(plain.known_live()), True: joined.reader(row)}
                alone, pair, ring = (
                    range(2 * _PAIRS + _RING, ACCOUNTS),
                    range(2 * _PAIRS),
                    range(2 * _PAIRS, 2 * _PAIRS + _RING),
                )
                kinds: dict[str, tuple[bool, Callable[[], int]]] = {
                    "a key as it was sent": (False, lambda: int(rng.integers(alone.start, alone.stop))),
                    "an entity of one member": (True, lambda: int(rng.integers(alone.start, alone.stop))),
                    "an entity of two": (True, lambda: int(rng.integers(pair.start, pair.stop))),
                    "an entity of ten": (True, lambda: int(rng.integers(ring.start, ring.stop))),
                }
                seen: dict[str, list[float]] = {kind: [] for kind in kinds}
                for turn in range(-1, arguments.turns):
                    for kind, (resolved, draw) in kinds.items():
                        merchants = rng.integers(0, MERCHANTS, arguments.reads).tolist()
                        bodies = [request(as_of, account(draw()), f"terminal-{number:07d}") for number in merchants]
                        taken = seconds_of(readers[resolved], bodies)
                        if turn >= 0:
                            seen[kind] += taken
        finally:
            stop_embedded(folder / "postgres")
    base = statistics.median(seen["a key as it was sent"])
    rows = [
        Row(
            f"get_features through the library, {kind}",
            f"p50 {statistics.median(taken) * 1e3:.2f} ms ({statistics.median(taken) / base:.2f}x),"
            f" p99 {np.percentile(taken, 99) * 1e3:.2f} ms",
        )
        for kind, taken in seen.items()
    ]
    rows += [
        Row(f"links folded ({len(said):,})", f"{len(said) / fold_seconds:,.0f}/s"),
        Row("catch-up of the projector where a group resolves, over where none does", f"{rates[True] / rates[False]:.2f}x",
            ">= 0.8x", rates[True] >= 0.8 * rates[False]),
    ]  # fmt: skip
    figures = Figures(
        suite="entities",
        kind="bench",
        title=f"Features of entities, as of {format_time(as_of)}",
        rows=tuple(rows),
        seconds=time.perf_counter() - began,
        arguments=vars(arguments),
        raw={"seconds": seen, "catch_up": {str(name): rate for name, rate in rates.items()}},
    )
    print(figures.table())
    figures.write()


if __name__ == "__main__":
    main()
