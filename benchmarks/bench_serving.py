"""get_features over HTTP, beside a constant answer of the same size from the same HTTP stack, and beside Feast.

`python -m benchmarks.bench_serving --size 0.1 --turns 3`: 2 keys of 15,000, 12 windowed features, hash and provenance on, keys
and instants at random; 1 and 8 connections. All servers stand the whole time, one worker each, and are asked in turns of a
second: what the machine does meanwhile is done to all of them. Ratios are medians over the turns. Feast serves the same
features of the same keys, computed before, from SQLite and from a Redis protocol server. One terminal is hot: it has a million
events in its window. What a service answers in its first pass over the keys, when its cache is empty, is shown apart.
"""

from __future__ import annotations

import argparse
import http.client
import json
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import feast
from benchmarks.figures import Figures, Row
from benchmarks.load import Load, load, post
from benchmarks.peer import PeerUnavailable, interpreter
from benchmarks.servers import ConstantApp, feast_server, plane_app, redis_server, server
from benchmarks.serving_world import ServingWorld, build
from ofp_platform.storage.embedded import stop_embedded

CONNECTIONS = (1, 8)
POOL = 20_000
OWN, HOT, FLOOR = "get_features", "get_features, hot key", "constant"
AIM_RATE, AIM_P99, AIM_FLOOR, AIM_HOT = 5.0, 20.0, 0.25, 3.0


@dataclass
class Contest:
    """Servers under load: port and requests of each by name, and what each turn measured, by name and connections."""

    seconds: float
    seed: int
    contestants: dict[str, tuple[int, list[bytes]]] = field(default_factory=dict)
    runs: dict[tuple[str, int], list[Load]] = field(default_factory=dict)

    def enter(self, name: str, port: int, requests: list[bytes]) -> None:
        """Let a server take part, warmed up."""
        load(port, requests[: len(requests) // 10], max(CONNECTIONS), self.seconds)
        self.contestants[name] = (port, requests)

    def turn(self, number: int) -> None:
        """Ask all of them, each for the same time; another one begins at every turn."""
        names = list(self.contestants)
        shift = number % len(names)
        rng = np.random.default_rng([self.seed, number])
        for connections in CONNECTIONS:
            for name in names[shift:] + names[:shift]:
                port, requests = self.contestants[name]
                start = int(rng.integers(len(requests)))
                turn_load = load(port, requests[start:] + requests[:start], connections, self.seconds)
                self.runs.setdefault((name, connections), []).append(turn_load)

    def median(self, name: str, connections: int, quantile: float | None = None) -> float:
        """Of the turns: requests per second, or a latency in milliseconds."""
        return float(np.median([_figure(part, quantile) for part in self.runs[name, connections]]))

    def ratio(self, name: str, other: str, connections: int, quantile: float | None = None) -> float:
        """One server's figure over another's, of the same turn; the median of the turns."""
        pairs = zip(self.runs[name, connections], self.runs[other, connections], strict=True)
        return float(np.median([_figure(own_load, quantile) / _figure(peer, quantile) for own_load, peer in pairs]))

    def row(self, name: str, connections: int, claim: str) -> Row:
        """The rate and latencies of a server, without an aim."""
        rate = self.median(name, connections)
        p50, p99 = (self.median(name, connections, quantile) for quantile in (0.5, 0.99))
        return Row(f"{claim}, {_plural(connections)}", f"{rate:,.0f}/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms")


def _figure(part: Load, quantile: float | None) -> float:
    return part.rate if quantile is None else part.quantile(quantile)


def _plural(connections: int) -> str:
    return f"{connections} connection{'s' * (connections > 1)}"


def enter_feast(contest: Contest, world: ServingWorld, folder: Path, standing: ExitStack) -> tuple[list[str], list[Row]]:
    """Let Feast take part with each of its stores that can be had: their names, and rows for those that cannot."""
    names: list[str] = []
    missing: list[Row] = []
    for store in ("sqlite", "redis"):
        name = f"Feast {feast.VERSION}, {store}"
        try:
            python = interpreter("feast")
            settings: dict[str, object] = {"type": "sqlite", "path": str(folder / "online.db")}
            if store == "redis":
                port, version = standing.enter_context(redis_server(folder))
                name = f"Feast {feast.VERSION}, redis ({version})"
                settings = {"type": "redis", "connection_string": f"127.0.0.1:{port}"}
            repository = feast.repository(python, folder / f"feast-{store}", settings, world.values)
            port = standing.enter_context(feast_server(python, repository))
        except PeerUnavailable as error:
            missing.append(Row(name, f"not measured: {error}"))
            continue
        peer_requests = feast.requests(world.cold, world.values)
        for request in peer_requests[:20]:
            feast.check(_ask(port, request), world.values)
        contest.enter(name, port, peer_requests)
        names.append(name)
    return names, missing


def _ask(port: int, request: bytes) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", feast.PATH, request.split(b"\r\n\r\n", 1)[1], {"content-type": "application/json"})
    answer = connection.getresponse().read()
    connection.close()
    return answer


def rows_of(contest: Contest, peers: list[str], hot: int, answer_bytes: int) -> list[Row]:
    """The table: first what each server did, then what is claimed of them."""
    claims = {OWN: OWN, FLOOR: f"constant answer of {answer_bytes:,} B"} | {peer: peer for peer in peers}
    if hot:
        claims[HOT] = f"get_features, one of its keys with {hot:,} events in the window"
    rows = [contest.row(name, connections, claim) for name, claim in claims.items() for connections in CONNECTIONS]
    rows += rows_over_feast(contest, peers)
    part = contest.ratio(OWN, FLOOR, 8)
    rows.append(Row("requests/s, 8 connections, of the constant answer's", f"{part:.3f}x", ">= 0.25x", part >= AIM_FLOOR))
    if hot:
        part = contest.ratio(HOT, OWN, 1, 0.99)
        rows.append(Row("p99 of the hot key, 1 connection, over a cold key's", f"{part:.2f}x", "<= 3x", part <= AIM_HOT))
    answer_count = sum(part.requests for parts in contest.runs.values() for part in parts)
    failure_count = sum(part.failures for parts in contest.runs.values() for part in parts)
    return [*rows, Row("answers other than 200", f"{failure_count:,} of {answer_count:,}", "0", failure_count == 0)]


def rows_over_feast(contest: Contest, peers: list[str]) -> list[Row]:
    """The claims against Feast, each beside the store that is the least favourable to it."""
    rate, p99, p50 = (
        ("requests/s of one worker, 8 connections, over Feast's", ">= 5x"),
        ("p99, 8 connections, of Feast's", "<= 1/20"),
        ("p50, 1 connection, of Feast's", "<= 1x"),
    )
    if not peers:
        return [Row(claim, "not measured: no Feast", aim) for claim, aim in (rate, p99, p50)]
    times = min(contest.ratio(OWN, peer, 8) for peer in peers)
    tail = max(contest.ratio(OWN, peer, 8, 0.99) for peer in peers)
    middle = max(contest.ratio(OWN, peer, 1, 0.5) for peer in peers)
    return [
        Row(rate[0], f"{times:.2f}x", rate[1], times >= AIM_RATE),
        Row(p99[0], f"1/{1 / tail:.1f}", p99[1], tail <= 1 / AIM_P99),
        Row(p50[0], f"{middle:.2f}x", p50[1], middle <= 1),
    ]


def measure(folder: Path, arguments: argparse.Namespace) -> tuple[list[Row], dict[str, object]]:
    """The rows, and the raw results."""
    events, hot = round(arguments.events * arguments.size), round(arguments.hot * arguments.size)
    world = build(folder, events=events, hot=hot, requests=POOL, seed=arguments.seed)
    cold, warm = ([post("/v0/get_features", body) for body in bodies] for bodies in (world.cold, world.hot))
    contest = Contest(arguments.seconds, arguments.seed)
    with ExitStack() as standing:
        floor = standing.enter_context(server(partial(ConstantApp, b"x" * world.answer_bytes)))
        own_port = standing.enter_context(server(partial(plane_app, world.profile, world.dsn, arguments.cache_mb << 20)))
        # one pass in which most of the 15,000 keys are asked for the first time
        first = load(own_port, cold[:8_000], 8)
        contest.enter(FLOOR, floor, cold)
        contest.enter(OWN, own_port, cold)
        if hot:
            contest.enter(HOT, own_port, warm)
        peers, missing = enter_feast(contest, world, folder, standing)
        for number in range(arguments.turns):
            contest.turn(number)
    first_pass = f"{first.rate:,.0f}/s, p50 {first.quantile(0.5):.2f} ms, p99 {first.quantile(0.99):.2f} ms"
    rows = [Row("get_features, first pass, cache empty, 8 connections", first_pass), *missing]
    runs = {f"{name}, {count}": [part.compact() for part in parts] for (name, count), parts in contest.runs.items()}
    return rows + rows_of(contest, peers, hot, world.answer_bytes), {"runs": runs, "first pass": first.compact()}


def main() -> None:
    """Print the table and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=1.0, help="1 is the full length; scales --events and --hot")
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--hot", type=int, default=1_000_000, help="events in one terminal's window; 0: no hot key")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn of one server")
    parser.add_argument("--cache-mb", type=int, default=256, help="0: every answer from the store")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    # whoever stops a run stops its servers too: without this they would be left standing
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            rows, raw = measure(Path(folder), arguments)
        finally:
            stop_embedded(Path(folder) / "postgres")
    title = "get_features over HTTP, one worker, beside a constant answer and Feast"
    figures = Figures(
        "serving", "bench", title, tuple(rows), time.perf_counter() - began, vars(arguments), json.loads(json.dumps(raw))
    )
    print(figures.table())
    figures.write()


if __name__ == "__main__":
    main()
