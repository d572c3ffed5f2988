"""The whole durable way of an event in an open loop: door, log, features, decision, action, audit log; each part its own process.

`python -m benchmarks.bench_loop`: single events are offered at the HTTP door at a fixed rate, whatever becomes of those before
them, and each one's times count from when it was due: until its receipt came, until its decision was visible in the stream of
decisions, until the outcome of the last action that it wants was (2 to 3% are declined: an account hold, and a signed webhook
that a receiver on this machine takes), and until the head of the audit log that covers its decision was in the object store. An
event that came nowhere within the time given behind the last one is counted, and no percentile is given for a stage that lacks
one.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import orjson
import uvloop

from benchmarks.bench_ingress import send_at_rate
from benchmarks.figures import Figures, Row
from benchmarks.handbook import DAYS
from benchmarks.loop_site import LoopSite, loop_run, loop_site
from benchmarks.loop_stages import stages, watching
from benchmarks.world import ACCOUNTS, DAY, MERCHANTS, PINS, START, fresh_database
from ofp_platform.online.plane import Plane
from ofp_platform.storage.embedded import stop_embedded
from ofp_platform.vocabulary.times import format_time

AIM_MS = {500: 60.0, 1_000: 35.0}
"""Greatest p99 until the head of the audit log, by rate; of other rates there is none."""
QUANTILES = (0.5, 0.99, 0.999)
STAGES = {
    "receipt": "receipt of the door",
    "decided": "decision recorded",
    "acted": "action done",
    "audited": "head of the audit log that covers it",
}
_LOOK_SECONDS = 0.2
_DECIDED = "SELECT count(*) FROM ofp.decision_record"
_WANTED = "SELECT (SELECT count(*) FROM ofp.decision_record), (SELECT count(*) FROM ofp.action_intent)"
_OPEN = "SELECT (SELECT count(*) FROM ofp.action_open), (SELECT count(*) FROM ofp.audit_leaf WHERE leaf_kind = 'decision')"


def events(rate: int, count: int, turn: int) -> list[tuple[str, bytes]]:
    """The ids and the texts of so many transactions behind the world's last, one each 1/rate s, of customers at random."""
    rng = np.random.default_rng(turn)
    customers, terminals, amounts = (rng.integers(low, high, count).tolist() for low, high in _RANGES)
    begin = START + (DAYS + 1 + turn) * DAY
    made = []
    for number, (customer, terminal, amount) in enumerate(zip(customers, terminals, amounts, strict=True)):
        event_id = f"loop-{turn}-{number:07d}"
        payload = {"amount_minor": amount, "customer_id": f"customer-{customer}", "terminal_id": f"terminal-{terminal}"}
        head = {"event_id": event_id, "event_type": "transaction", "schema_version": "v1"}
        ts = format_time(begin + number * 1_000_000 // rate)
        made.append((event_id, orjson.dumps([{**head, "ts_utc": ts, **PINS.wire(), "payload": payload}])))
    return made


_RANGES = ((0, ACCOUNTS), (0, MERCHANTS), (100, 50_000))


def offer(site: LoopSite, offered: Sequence[tuple[str, bytes]], rate: int) -> tuple[dict[str, float], list[float]]:
    """Offer events at a rate: when each was due, by the performance counter, and the milliseconds until each receipt."""
    gc.collect()
    gc.disable()
    try:
        began = time.perf_counter() + 0.2
        took = uvloop.run(send_at_rate(urlsplit(site.door), site.key, [body for _, body in offered], rate, began))
    finally:
        gc.enable()
    return {event_id: began + number / rate for number, (event_id, _) in enumerate(offered)}, took


def settle(plane: Plane, decisions: int, seconds: float) -> None:
    """Wait until so many decisions are made, done and leaves of the audit log; at most so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with plane.pool.connection() as connection:
            ((decided,),) = connection.execute(_DECIDED).fetchall()
            ((still_open, leaves),) = connection.execute(_OPEN).fetchall()
        if decided >= decisions and not still_open and leaves >= decisions:
            return
        time.sleep(_LOOK_SECONDS)


def quantile(ascending: Sequence[float], q: float) -> float:
    """Of latencies in ascending order."""
    return ascending[min(len(ascending) - 1, int(q * len(ascending)))]


def processor_row(rate: int, count: int, before: Mapping[str, float], after: Mapping[str, float]) -> Row:
    """The processor time of the processes, for each event."""
    took = {name: (seconds - before.get(name, 0.0)) / count * 1e3 for name, seconds in after.items()}
    parts = ", ".join(f"{name} {each:.2f}" for name, each in sorted(took.items(), key=lambda pair: -pair[1]))
    return Row(f"{rate:,}/s: processor time of an event", f"{sum(took.values()):.2f} ms: {parts}")


def wanted_row(plane: Plane, rate: int) -> Row:
    """How many actions and decisions there were until now, in all turns."""
    with plane.pool.connection() as connection:
        ((decisions, intents),) = connection.execute(_WANTED).fetchall()
    return Row(f"{rate:,}/s and before: actions wanted", f"{intents:,} of {decisions:,} decisions")


def rows_of(rate: int, latencies: Mapping[str, tuple[list[float], int]], behind_seconds: float) -> list[Row]:
    """The rows of one rate. `latencies`: of each stage, and how many never came there."""
    rows = []
    for stage, words in STAGES.items():
        took, missing = latencies[stage]
        aim = AIM_MS.get(rate) if stage == "audited" else None
        if missing or not took:
            seen = f"{missing:,} of {len(took) + missing:,} never" if missing else "none is wanted"
            rows.append(
                Row(f"{rate:,}/s: {words}", seen, "" if aim is None else f"<= {aim:g} ms", None if aim is None else False)
            )
            continue
        p50, p99, p999 = (quantile(took, q) for q in QUANTILES)
        seen = f"p50 {p50:.1f}, p99 {p99:.1f}, p99.9 {p999:.1f} ms"
        rows.append(Row(f"{rate:,}/s: {words}", seen, *(() if aim is None else (f"p99 <= {aim:g} ms", p99 <= aim))))
    pace = "yes" if behind_seconds <= 1.0 else f"no: {behind_seconds:.1f} s behind at the end"
    rows.append(Row(f"{rate:,}/s: the decider keeps pace", pace, "yes", behind_seconds <= 1.0))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=20_000, help="of the world before")
    parser.add_argument("--rates", type=int, nargs="+", default=[500, 1_000])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each rate")
    parser.add_argument("--settle-seconds", type=float, default=60.0, help="for what is not done behind the last event")
    arguments = parser.parse_args()
    began = time.perf_counter()
    rows: list[Row] = []
    raw: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dsn = fresh_database(folder, "loop")
        try:
            declared = loop_run(folder, dsn, arguments.transactions)
            with Plane.open(declared, dsn) as plane, loop_site(declared, folder, dsn) as site:
                decisions = 0
                # the first turn warms connections, plans and caches, and is not counted
                for turn, rate in enumerate([arguments.rates[0], *arguments.rates]):
                    count = max(1, int(rate * arguments.seconds / (1 if turn else 3)))
                    decisions += count
                    offered = events(rate, count, turn)
                    with watching(dsn, declared.decisions_stream or "") as sight:
                        before = site.processor_seconds()
                        due, receipts = offer(site, offered, rate)
                        ended = time.perf_counter()
                        settle(plane, decisions, arguments.settle_seconds)
                        site.demand_alive()
                        after = site.processor_seconds()
                    seen = stages(plane, sight, folder / "objects")
                    if not turn:
                        continue
                    latencies = {stage: seen.latencies(stage, due) for stage in STAGES if stage != "receipt"}
                    latencies["receipt"] = sorted(receipts), 0
                    last = max((seen.decided[event_id] for event_id in due if event_id in seen.decided), default=float("inf"))
                    rows += [
                        *rows_of(rate, latencies, last - ended),
                        processor_row(rate, count, before, after),
                        wanted_row(plane, rate),
                    ]
                    raw[str(rate)] = {stage: [round(value, 1) for value in took] for stage, (took, _) in latencies.items()}
        finally:
            stop_embedded(folder / "postgres")
    figures = Figures(
        "loop",
        "bench",
        "The whole loop, durable, from when an event is due (open loop)",
        tuple(rows),
        time.perf_counter() - began,
        vars(arguments),
        raw,
    )
    print(figures.table())
    figures.write()


if __name__ == "__main__":
    main()
