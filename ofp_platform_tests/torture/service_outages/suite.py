"""Service outages: PostgreSQL, S3, Kinesis and Kafka away for half a minute under load: killed, halted, or cut off."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from ofp_platform_tests.torture.service_outages.load import ANSWER_SECONDS
from ofp_platform_tests.torture.service_outages.services import Disturbed, DisturbedServices, Outage, disturbed_services
from ofp_platform_tests.torture.service_outages.world import (
    NAMED_SECONDS,
    RECOVERY_SECONDS,
    SILENT_RECOVERY_SECONDS,
    Found,
    OutageWorld,
)
from ofp_platform_tests.torture.suite import Run, Suite

SECONDS = 30.0
SHORT_SECONDS = 2.0
SHORT = 0.1
"""Below this size: the shortest outages, of each service one or two."""
_LOGS = ("postgres", "kinesis", "kafka")


def cases(services: DisturbedServices, log_kind: str, *, is_short: bool) -> Iterator[tuple[Disturbed, Outage]]:
    """The outages of a world, one after the other. A log that keeps its records in memory is killed at the end: `lost`."""
    log = services.log_of(log_kind)
    if is_short:
        yield from {
            "kafka": [(services.postgres, Outage.KILLED), (services.objects, Outage.KILLED)],
        }[log_kind]
        return
    if log is services.postgres:
        yield from ((service, outage) for service in (log, services.objects) for outage in Outage)
        return
    if log is services.kinesis:  # Tansu tells no end of a partition for minutes when it was halted
        yield from ((log, outage) for outage in (Outage.HALTED, Outage.UNREACHABLE))
    yield services.postgres, Outage.KILLED
    yield services.objects, Outage.KILLED


def torture(run: Run) -> None:
    """A world for each kind of log, on the same servers."""
    is_short = run.size < SHORT
    seconds = SHORT_SECONDS if is_short else SECONDS * min(1.0, run.size)
    found: dict[str, Found] = {}
    with _environment(run) as services:
        for number, log_kind in enumerate(_LOGS[-1:] if is_short else _LOGS):
            size = {"records": 400, "readers": 2} if is_short else {"records": 4_000, "readers": 4}
            with OutageWorld(services, log_kind, run.folder / log_kind, run.seed + number, **size) as world:
                for disturbed, outage in cases(services, log_kind, is_short=is_short):
                    name = f"log {log_kind}, {disturbed.name} {outage}"
                    within = RECOVERY_SECONDS if is_short else NAMED_SECONDS  # a test does not depend on the load of its machine
                    world.outage(disturbed, outage, seconds, found.setdefault(name, Found()), within)
                hung = world.load.stop(RECOVERY_SECONDS)
                run.claim(f"log {log_kind}: the load ends as it began", tried=1, failed=len(hung), aim="0")
                told = world.load.told
                slow = f"{told.longest_seconds:.1f} s of {len(told.served):,} answers and {sum(told.refused.values()):,} refusals"
                run.fact(
                    f"log {log_kind}: longest wait",
                    slow,
                    aim=f"<= {ANSWER_SECONDS:g} s",
                    reached=told.longest_seconds <= ANSWER_SECONDS,
                )
                run.raw[f"log {log_kind}"] = {"hung": hung, "receipts": len(told.receipts), "decided": len(told.decided)}
                if log_kind != "postgres":
                    lost = world.lost()
                    run.claim(
                        f"log {log_kind}, killed with all its records: named, and none read as empty",
                        tried=1,
                        failed=len(lost),
                        aim="0",
                    )
                    run.raw[f"log {log_kind}, killed"] = lost
    for name, one in found.items():
        report(run, name, one)


def report(run: Run, name: str, found: Found) -> None:
    """The rows of one kind of outage."""
    run.claim(f"{name}: goes on by itself", tried=found.outages, failed=len(found.hung), aim="0", of="outages")
    run.claim(f"{name}: named by health", tried=found.outages, failed=len(found.unnamed), aim="0", of="outages")
    run.claim(f"{name}: nothing lost, doubled or wrong", tried=found.outages, failed=len(found.wrong), aim="0", of="outages")
    if found.recovery_seconds:
        named, back = max(found.named_seconds, default=0.0), max(found.recovery_seconds)
        seen = f"named after {named:.1f} s, all of it back {back:.1f} s after its end"
        limit = SILENT_RECOVERY_SECONDS if Outage.UNREACHABLE in name else RECOVERY_SECONDS
        run.fact(f"{name}: seconds", seen, aim=f"<= {limit:g} s", reached=back <= limit)
    refused = ", ".join(f"{count:,} {reason}" for reason, count in sorted(found.refused.items()))
    run.fact(f"{name}: refused meanwhile", refused or "nothing")
    run.raw[name] = {
        "hung": found.hung,
        "unnamed": found.unnamed,
        "wrong": found.wrong,
        "counts": dict(found.counts),
        "recovery_seconds": found.recovery_seconds,
    }


@contextmanager
def _environment(run: Run) -> Iterator[DisturbedServices]:
    """The services, with the credentials of this process; a socket's path is short, so not in the folder of the run."""
    with tempfile.TemporaryDirectory(prefix="ofp-outages-") as name:
        (Path(name) / "private").mkdir(mode=0o700)
        with disturbed_services(Path(name) / "private", run.seed) as services:
            wiring: Mapping[str, str] = services.wiring
            with mock.patch.dict(os.environ, wiring):
                yield services


SUITE = Suite("service_outages", "PostgreSQL, S3, Kinesis and Kafka away under load", torture)
