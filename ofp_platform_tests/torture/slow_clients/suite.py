"""5,000 clients that take their time, and what the others notice of them. It means something on a quiet machine only."""

from __future__ import annotations

from benchmarks.load import post
from ofp_platform_tests.torture.fuzz.suite import world
from ofp_platform_tests.torture.slow_clients.clients import CLIENTS, OPEN_SHARE, measure, possible_clients
from ofp_platform_tests.torture.suite import Run, Suite

TURNS, TURN_SECONDS = 8, 5.0


def torture(run: Run) -> None:
    """The p99 of eight ordinary connections, beside slow clients and without."""
    clients = possible_clients()
    if clients < CLIENTS:
        run.fact(f"slow clients, of {CLIENTS:,}", f"{clients:,}: this machine lets a process open no more files (`ulimit -n`)")
    with world(run) as (port, _, valid, _):
        requests = [post("/v0/get_features", body) for body, _ in valid]
        found = measure(port, requests, run.count(TURNS), TURN_SECONDS, clients)
    enough = found.least_open >= clients * OPEN_SHARE
    run.fact(f"{clients:,} slow clients: p99 of the others", f"{found.ratio:.2f}x", aim="<= 2x", reached=found.ratio <= 2)
    run.fact(
        "slow clients open at the same time, at least",
        f"{found.least_open:,}",
        aim=f">= {clients * OPEN_SHARE:,.0f}",
        reached=enough,
    )
    ordinary = sum(part.requests for part in (*found.alone, *found.crowded))
    run.claim("ordinary requests beside them", tried=ordinary, failed=found.failures, aim="0")
    run.raw["slow_clients"] = {
        "p99_ms_alone": [part.quantile(0.99) for part in found.alone],
        "p99_ms_crowded": [part.quantile(0.99) for part in found.crowded],
        "ended_by_the_service": dict(found.ended),
    }


SUITE = Suite("slow_clients", "Slow clients beside ordinary ones", torture)
