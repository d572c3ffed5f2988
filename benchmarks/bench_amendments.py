"""Catch-up of the projector where events may be amended, beside the same events in a pack that declares no amendments.

`python -m benchmarks.bench_amendments --transactions 300000`: the handbook's pack and simulated transactions, two keys each, by
turns in new databases: the pack as it is; one in which transactions may be voided and their amounts replaced; that pack and one
amendment more for every hundredth transaction, half of them voids. Rates count events and amendments.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from benchmarks.bench_projection import project
from benchmarks.figures import Figures, Row
from benchmarks.world import fresh_database, profile, transactions
from ofp_platform.log.port import AdmissionClock
from ofp_platform.online.plane import Plane
from ofp_platform.storage.embedded import stop_embedded
from ofp_platform.vocabulary.times import format_time, parse_time

AIM_OF_PLAIN = 0.8
PLAIN, AMENDABLE, AMENDED = "plain", "amendable", "amended"
_FIELDS = "    fields:\n      amount_minor: integer\n"
_DECLARED = "    amendments: {by: [transaction], may_change: [amount_minor]}\n"
_EVERY = 100

Envelopes = list[dict[str, object]]


def with_amendments(batches: Iterator[tuple[Envelopes, AdmissionClock]]) -> Iterator[tuple[Envelopes, AdmissionClock]]:
    """The batches, each with an amendment of every hundredth event behind its events."""
    number = 0
    for events, clock in batches:
        amendments: Envelopes = []
        for event in events[::_EVERY]:
            kind = "replace" if number % 2 else "void"
            amends = {"event_class": "transaction", "event_id": event["event_id"], "ts_utc": event["ts_utc"], "kind": kind}
            later = format_time(parse_time(str(event["ts_utc"])) + 1_000_000)
            payload = {**dict(event["payload"]), "amount_minor": 1}  # type: ignore[call-overload]
            own = {"event_id": f"amendment-{number}", "ts_utc": later, "amends": amends, "payload": payload}
            amendments.append({**event, **own})
            number += 1
        yield events + amendments, clock


def catch_up(folder: Path, name: str, count: int, batch: int) -> float:
    """Records per second of one catch-up in a database of its own."""
    text = (files("ofp_platform.registry.packs") / "handbook.yaml").read_text()
    if _FIELDS not in text:
        raise SystemExit("the handbook's pack does not declare the fields of a transaction as this benchmark knows them")
    pack = folder / f"{name}.yaml"
    pack.write_text(text if name == PLAIN else text.replace(_FIELDS, _FIELDS + _DECLARED))
    with Plane.open(profile(name, folder).model_copy(update={"pack": str(pack)}), fresh_database(folder, name)) as plane:
        batches = transactions(count, seed=1)
        for envelopes, clock in with_amendments(batches) if name == AMENDED else batches:
            receipt = plane.log.append(envelopes, clock)
            if receipt.refusals:
                raise SystemExit(f"the log refused: {receipt.refusals[0]}")
        records, seconds = project(plane, batch)
    return records / seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=300_000)
    parser.add_argument("--batch", type=int, default=50_000, help="the most records of one commit")
    parser.add_argument("--turns", type=int, default=3, help="how often each is measured, after one turn that is not counted")
    arguments = parser.parse_args()
    start_time = time.perf_counter()
    rates: dict[str, list[float]] = {PLAIN: [], AMENDABLE: [], AMENDED: []}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for turn in range(-1, arguments.turns):
                for name, seen in rates.items():
                    rate = catch_up(Path(folder), name, arguments.transactions, arguments.batch)
                    if turn >= 0:  # the first turn compiles kernels
                        seen.append(rate)
        finally:
            stop_embedded(Path(folder) / "postgres")
    middle = {name: statistics.median(seen) for name, seen in rates.items()}
    ratio = middle[AMENDED] / middle[PLAIN]
    rows = (
        Row("catch-up in a pack that declares no amendments", f"{middle[PLAIN]:,.0f} records/s"),
        Row("the same events where a transaction may be amended", f"{middle[AMENDABLE]:,.0f} records/s"),
        Row("with an amendment for 1% of the transactions", f"{middle[AMENDED]:,.0f} records/s"),
        Row("amendments over the pack that declares none", f"{ratio:.2f}x", f">= {AIM_OF_PLAIN}x", ratio >= AIM_OF_PLAIN),
        Row("amendments over the same pack without any", f"{middle[AMENDED] / middle[AMENDABLE]:.2f}x"),
    )
    figures = Figures(
        suite="amendments",
        kind="bench",
        title="Catch-up with amendments",
        rows=rows,
        seconds=time.perf_counter() - start_time,
        arguments=vars(arguments),
        raw={"rates": rates},
    )
    print(figures.table())
    figures.write()


if __name__ == "__main__":
    main()
