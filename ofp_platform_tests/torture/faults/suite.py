"""Faults: latency, resets, silence, cuts and trickles between the plane and PostgreSQL, S3 and Kinesis."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from ofp_platform.log.port import RecordRefusal
from ofp_platform.online.plane import Plane
from ofp_platform.online.state.chunk_codec import ChunkCorrupt
from ofp_platform_tests.oracle.simulated_log import PINS, profile
from ofp_platform_tests.torture.faults.absences import torture_absences
from ofp_platform_tests.torture.faults.kinesis import torture_kinesis
from ofp_platform_tests.torture.faults.objects import aws, torture_publishing
from ofp_platform_tests.torture.faults.oracle import LogOracle, questions_about
from ofp_platform_tests.torture.faults.periods import Findings, impatient, through, upstream_of
from ofp_platform_tests.torture.faults.proxy import Fault, FaultProxy
from ofp_platform_tests.torture.faults.store import DEADLINE_SECONDS, Asked, torture_store
from ofp_platform_tests.torture.faults.world import NAMES, payments
from ofp_platform_tests.torture.own_database import fresh_database
from ofp_platform_tests.torture.suite import Run, Suite

STORE_PERIODS, PUBLISHING_PERIODS, KINESIS_PERIODS = 50, 18, 50
"""At full length; publishing as often with each of its two stores disturbed."""
_CONTROLS = 20


def torture(run: Run) -> None:
    """All workloads, one after the other, and the control."""
    with _quiet():
        findings, asked = torture_store(run.dsn, run.folder, run.seed, run.count(STORE_PERIODS))
        report_store(run, findings, asked)
        with aws() as at:
            periods = run.count(PUBLISHING_PERIODS)
            for store, found in torture_publishing(run.dsn, at, run.folder, run.seed, periods).items():
                found.report(run, f"archive and builds, {store} disturbed")
            torture_kinesis(run.dsn, at, run.folder, run.seed, run.count(KINESIS_PERIODS)).report(
                run, "log on Kinesis, projector"
            )
        torture_absences(run)
        report_control(run)


def report_store(run: Run, findings: Findings, asked: Asked) -> None:
    """The rows of append, projection and serving over PostgreSQL."""
    findings.report(run, "append, projector, serving")
    seen = f"longest {asked.longest_seconds:.2f} s of {asked.requests:,} answers"
    claim = "serving: answered right or UNAVAILABLE with retry advice"
    run.fact(claim, seen, aim=f"<= {DEADLINE_SECONDS:g} s", reached=0 < asked.longest_seconds <= DEADLINE_SECONDS)
    refused = ", ".join(f"{count:,} {reason}" for reason, count in sorted(asked.refused.items()))
    run.fact("serving: refused while the store did not answer", refused or "none")


def report_control(run: Run) -> None:
    """The row of the control: bits flipped on the way to the state are noticed by the comparison that all rows rest on.

    PostgreSQL refuses most of them, and some change nothing that is asked for: so this is tried until it counts.
    """
    for attempt in range(_CONTROLS):
        if corrupted(run.dsn, run.folder / f"control-{attempt}", run.seed + attempt):
            run.fact("control: flipped bits in the state", f"noticed, at attempt {attempt + 1}", aim="noticed", reached=True)
            return
    run.fact("control: flipped bits in the state", "not noticed", aim="noticed", reached=False)


def corrupted(server: str, folder: Path, seed: int) -> bool:
    """Project by way of a proxy that flips bits, and compare with the oracle. Whether anything was noticed."""
    dsn = fresh_database(server, f"faults_control_{seed:x}")
    folder.mkdir(parents=True)
    chosen = profile(folder)
    deliveries = payments(300, seed % 1_000)
    with (
        Plane.open(chosen, dsn) as direct,
        FaultProxy(upstream_of(server), seed) as proxy,
        Plane.open(chosen, through(proxy, dsn), max_connections=2) as plane,
        impatient(),
    ):
        placed = direct.log.append_columns(deliveries.columns(), deliveries.admitted_at).placed
        assert not any(isinstance(one, RecordRefusal) for one in placed)
        row = direct.ensure_live()
        projector = plane.projector(row)
        proxy.disturb(Fault.CORRUPT)
        try:
            while projector.apply_available(max_records=1_000) is not None:
                pass
        except psycopg.Error:
            return False  # PostgreSQL did not take it
        finally:
            proxy.calm()
        row = direct.row(row.projection_id)
        oracle = LogOracle(direct.log, chosen, direct.registry_of(row))
        oracle.read()
        reader = direct.reader(row)
        try:
            for question in questions_about(deliveries, oracle.registry, NAMES):
                if oracle.wrong([(question, row.basis, reader.answer(question.body(PINS)).hash)]):
                    return True
        except ChunkCorrupt:
            return True
        return False


@contextmanager
def _quiet() -> Iterator[None]:
    """Pools tell of every connection that they lose; here that is all of them."""
    loggers = [logging.getLogger(name) for name in ("psycopg", "psycopg.pool", "asyncpg.pool", "asyncio", "ofp_platform")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


SUITE = Suite("faults", "Faults between the plane and PostgreSQL, S3 and Kinesis", torture)
