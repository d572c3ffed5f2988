"""The parts of the mature world's suite that measure answers: beside commits, of a hot key, open loop, more partitions."""

from __future__ import annotations

import http.client
import time
from argparse import Namespace
from contextlib import ExitStack
from functools import partial
from statistics import median

from benchmarks.figures import Row
from benchmarks.keys import KEY
from benchmarks.load import Load, load
from benchmarks.mature_rig import HOT_DEVICE, HOT_MERCHANT, ORDINARY, PATH, Rig, Together, at_least, at_most, opened, rate_of
from benchmarks.open_loop import open_load
from benchmarks.servers import ConstantApp, server

AIM_RATE, AIM_FLOOR, AIM_OPEN_P99, AIM_OPEN_P999, AIM_HOT, AIM_PARTITIONS = 9_000, 0.5, 3.0, 10.0, 3.0, 1.1
BESIDE_RATE = 2_000
COMMITS_A_SECOND = 20
CONNECTIONS = 8
_REQUESTS = 6_000
_MOST_KEYS = 20_000
"""Of the worlds that differ in partitions alone."""
MORE_PARTITIONS = 32


def serving(rig: Rig, together: Together) -> list[Row]:
    """get_features beside 2,000 events/s in 20 appends a second, in turns with a constant answer of the same front."""
    arguments = rig.arguments
    seconds = arguments.turns * arguments.turn_seconds * 6 + arguments.seconds * 2 + 120
    runs: dict[str, list[Load]] = {"own": [], "floor": [], "hot": [], "ordinary": []}
    body = _ask(together.port, rig.bodies(1, 2)[0])
    with server(partial(ConstantApp, body)) as floor:
        together.producers.begin(rig.pace(seconds, rate=BESIDE_RATE, tick=1 / COMMITS_A_SECOND))
        load(together.port, rig.bodies(_REQUESTS, 3), CONNECTIONS, arguments.turn_seconds)
        load(floor, rig.bodies(_REQUESTS, 3), CONNECTIONS, arguments.turn_seconds)
        together.wait_for_commits(1)
        begin = together.meter.read()
        for turn in range(arguments.turns):
            contestants = [
                ("own", together.port, rig.bodies(_REQUESTS, 10 + turn), CONNECTIONS),
                ("floor", floor, rig.bodies(200, 10 + turn), CONNECTIONS),
                ("hot", together.port, rig.bodies(_REQUESTS // 4, 10 + turn, HOT_MERCHANT), 1),
                ("ordinary", together.port, rig.bodies(_REQUESTS // 4, 10 + turn, ORDINARY), 1),
            ]
            shift = turn % len(contestants)
            for name, port, requests, connections in contestants[shift:] + contestants[:shift]:
                runs[name].append(load(port, requests, connections, arguments.turn_seconds))
        end = together.meter.read()
        half = _rate(runs["own"]) / 2
        requests = rig.bodies(min(round(half * arguments.seconds), 20_000), 4)
        open_run = open_load(together.port, requests, half, arguments.seconds, arguments.seed)
        last = together.meter.read()
        together.producers.stop()
    rig.settle()
    runs["open loop"] = [open_run]
    rig.raw["serving" + rig.behind] = {name: [run.compact() for run in parts] for name, parts in runs.items()} | {
        "answer bytes": len(body),
        "records behind at the end": last.appended - last.records,
    }
    return _serving_rows(rig, runs, len(body), rate_of((begin, end)), (end.version - begin.version) / (end.at - begin.at))


def _serving_rows(rig: Rig, runs: dict[str, list[Load]], size: int, event_rate: float, commit_rate: float) -> list[Row]:
    beside = "beside commits" + rig.behind
    own = _rate(runs["own"])
    floor_part = median(a.rate / b.rate for a, b in zip(runs["own"], runs["floor"], strict=True))
    hot_part = median(a.quantile(0.99) / b.quantile(0.99) for a, b in zip(runs["hot"], runs["ordinary"], strict=True))
    open_run = runs["open loop"][0]
    p99, p999 = open_run.quantile(0.99), open_run.quantile(0.999)
    failures = sum(run.failures for parts in runs.values() for run in parts)
    answers = sum(run.requests for parts in runs.values() for run in parts)
    return [
        Row(f"{beside}: events and commits a second", f"{event_rate:,.0f}, {commit_rate:.0f}"),
        Row(
            f"{beside}: get_features, 5 keys, {CONNECTIONS} connections",
            f"{own:,.0f}/s, {_latencies(runs['own'])}",
            *at_least(own, AIM_RATE, "/s"),
        ),
        Row(f"{beside}: constant answer of {size:,} B", f"{_rate(runs['floor']):,.0f}/s, {_latencies(runs['floor'])}"),
        Row(f"{beside}: get_features of the constant answer's", f"{floor_part:.3f}x", *at_least(floor_part, AIM_FLOOR, "x")),
        Row(f"{beside}: the hot merchant's payments, 1 connection", f"{_rate(runs['hot']):,.0f}/s, {_latencies(runs['hot'])}"),
        Row(f"{beside}: ordinary payments, 1 connection", f"{_rate(runs['ordinary']):,.0f}/s, {_latencies(runs['ordinary'])}"),
        Row(f"{beside}: p99 of the hot merchant over ordinary ones", f"{hot_part:.2f}x", *at_most(hot_part, AIM_HOT, "x")),
        Row(
            f"{beside}: open loop at {open_run.requests / open_run.seconds:,.0f}/s, p99",
            f"{p99:.2f} ms (p50 {open_run.quantile(0.5):.2f} ms)",
            *at_most(p99, AIM_OPEN_P99, " ms"),
        ),
        Row(f"{beside}: open loop, p99.9", f"{p999:.2f} ms", *at_most(p999, AIM_OPEN_P999, " ms")),
        Row(f"{beside}: answers other than 200", f"{failures:,} of {answers:,}", "0", failures == 0),
    ]


def _rate(parts: list[Load]) -> float:
    return median(part.rate for part in parts)


def _latencies(parts: list[Load]) -> str:
    p50, p99 = (median(part.quantile(quantile) for part in parts) for quantile in (0.5, 0.99))
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"


def hot(rig: Rig, together: Together) -> list[Row]:
    """A merchant and a device with many events in a day, and ordinary ones, asked in turns beside 20 commits a second."""
    arguments = rig.arguments
    rig.append_hot(arguments.hot_events)
    runs: dict[str, list[Load]] = {HOT_MERCHANT: [], HOT_DEVICE: [], ORDINARY: []}
    seconds = arguments.turns * arguments.turn_seconds * 5 + 120
    rig.settle()
    together.producers.begin(rig.pace(seconds, rate=BESIDE_RATE, tick=1 / COMMITS_A_SECOND))
    for kind in runs:
        load(together.port, rig.bodies(_REQUESTS // 4, 5, kind), 1, arguments.turn_seconds)
    begin = together.meter.read()
    for turn in range(arguments.turns):
        for kind in list(runs) if turn % 2 else list(runs)[::-1]:
            requests = rig.bodies(_REQUESTS // 4, 10 + turn, kind)
            runs[kind].append(load(together.port, requests, 1, arguments.turn_seconds))
    end = together.meter.read()
    together.producers.stop()
    rig.raw["hot"] = {kind: [run.compact() for run in parts] for kind, parts in runs.items()}
    commit_rate = (end.version - begin.version) / (end.at - begin.at)
    rows = [
        Row(f"beside {commit_rate:.0f} commits/s: {ORDINARY}", f"{_rate(runs[ORDINARY]):,.0f}/s, {_latencies(runs[ORDINARY])}")
    ]
    for kind, count in ((HOT_MERCHANT, arguments.hot_events), (HOT_DEVICE, arguments.hot_events // 10)):
        pairs = zip(runs[kind], runs[ORDINARY], strict=True)
        ratio = median(one_run.quantile(0.99) / peer.quantile(0.99) for one_run, peer in pairs)
        rows += [
            Row(
                f"{kind}, {count:,} events more in a day, beside the same",
                f"{_rate(runs[kind]):,.0f}/s, {_latencies(runs[kind])}",
            ),
            Row(f"{kind}: its p99 over the ordinary one", f"{ratio:.2f}x", *at_most(ratio, AIM_HOT, "x")),
        ]
    return rows


def _ask(port: int, request: bytes) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(
        "POST", PATH, request.split(b"\r\n\r\n", 1)[1], {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    )
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status != 200:
        raise SystemExit(f"the server refuses: {body.decode()[:300]}")
    return body


def partitions(rig: Rig) -> list[Row]:
    """The same world in 4 partitions and in 32: commits, and answers after each of them, in turns."""
    arguments = rig.arguments
    keys = min(arguments.keys, _MOST_KEYS)
    counts = (4, MORE_PARTITIONS)
    seconds: dict[tuple[int, int], list[float]] = {}
    answers: dict[int, list[float]] = {count: [] for count in counts}
    sizes = (arguments.commit_records, max(arguments.commit_records // 20, 1))
    with ExitStack() as standing:
        rigs, ports = {}, {}
        for count in counts:
            own_arguments = Namespace(**{**vars(arguments), "keys": keys, "partitions": count})
            if (keys, count) == (arguments.keys, arguments.partitions):
                rigs[count] = rig
            else:
                rigs[count] = standing.enter_context(opened(own_arguments, rig.folder.parent))
            ports[count] = standing.enter_context(rigs[count].serving())[0]
        applying = {count: rigs[count].projector() for count in counts}
        for turn in range(arguments.turns + 1):
            for count in counts if turn % 2 else counts[::-1]:
                for size in sizes:
                    rigs[count].append_live(4, size)
                    began = time.perf_counter()
                    while applying[count].apply_available(max_records=size) is not None:
                        pass
                    seconds.setdefault((count, size), []).append((time.perf_counter() - began) / (4 * size))
                run = load(ports[count], rigs[count].bodies(_REQUESTS // 2, turn), CONNECTIONS, arguments.turn_seconds)
                answers[count].append(run.rate)
    rig.raw["partitions"] = {
        "seconds an event": {f"{count}, commits of {size}": values for (count, size), values in seconds.items()},
        "answers a second": {str(count): values for count, values in answers.items()},
    }
    rows = []
    few, many = counts
    for size in sizes:
        ratio = median(b / a for a, b in zip(seconds[few, size][1:], seconds[many, size][1:], strict=True))
        rate_few, rate_many = (1 / median(seconds[count, size][1:]) for count in counts)
        rows.append(
            Row(
                f"{many} partitions over {few}: time of commits of {size:,}",
                f"{ratio:.2f}x ({rate_few:,.0f} and {rate_many:,.0f} events/s)",
                *at_most(ratio, AIM_PARTITIONS, "x"),
            )
        )
    ratio = median(a / b for a, b in zip(answers[few][1:], answers[many][1:], strict=True))
    rate_few, rate_many = (median(answers[count][1:]) for count in counts)
    claim = f"{many} partitions over {few}: time of get_features, {CONNECTIONS} connections"
    rows.append(Row(claim, f"{ratio:.2f}x ({rate_few:,.0f}/s and {rate_many:,.0f}/s)", *at_most(ratio, AIM_PARTITIONS, "x")))
    return rows
