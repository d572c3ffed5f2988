"""Faults between the plane and Kinesis: a producer and a projector, each behind a proxy, with their PostgreSQL undisturbed."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from unittest import mock

from ofp_platform.log import kinesis
from ofp_platform.log.kinesis import KinesisLog, kinesis_client
from ofp_platform.log.port import LogUnavailable, Refusal, RefusalReason
from ofp_platform.online.continuous import run_continuous
from ofp_platform.online.plane import Plane
from ofp_platform.vocabulary.position import Basis
from ofp_platform_tests.oracle.simulated_log import PINS, profile
from ofp_platform_tests.torture.fault_proxy import Fault, FaultProxy
from ofp_platform_tests.torture.faults_oracle import LogOracle, questions_about
from ofp_platform_tests.torture.faults_periods import (
    PATIENCE_SECONDS,
    RECOVERY_SECONDS,
    Findings,
    Worker,
    disturbed,
    impatient,
    persist,
    schedule,
    title,
)
from ofp_platform_tests.torture.faults_store import BATCH, NAMES, database, payments

ANSWER_SECONDS = 1.0
_PACE_SECONDS = 0.1


class KinesisWorld:
    """A stream, its producer and its projector through proxies, and one who looks at it undisturbed."""

    def __init__(self, server: str, aws_at: tuple[str, int], folder: Path, seed: int, records: int) -> None:
        self.stack = ExitStack()
        self.seed = seed
        folder.mkdir(parents=True, exist_ok=True)
        dsn = database(server, f"faults_kinesis_{seed:x}")
        self.deliveries = payments(records, seed % 1_000)
        name = f"payments-{seed:x}"
        chosen = profile(folder, log_kind="kinesis", stream_name=name, kinesis_endpoint_url=f"http://{aws_at[0]}:{aws_at[1]}")
        self.direct = self.stack.enter_context(Plane.open(chosen, dsn))
        self.row = self.direct.ensure_live()
        self.oracle = LogOracle(self.direct.log, chosen, self.direct.registry_of(self.row))
        self.questions = questions_about(self.deliveries, self.oracle.registry, NAMES)
        self.proxies = [self.stack.enter_context(FaultProxy(aws_at, seed + way)) for way in range(2)]
        urls = [f"http://127.0.0.1:{proxy.port}" for proxy in self.proxies]
        self.log = KinesisLog(kinesis_client(urls[0]), name, chosen.partition_key)
        self.stack.callback(self.log.close)
        behind = chosen.model_copy(update={"kinesis_endpoint_url": urls[1]})
        self.plane = self.stack.enter_context(Plane.open(behind, dsn, max_connections=3))
        self.stop = threading.Event()
        self.projecting = Worker(
            lambda: run_continuous(self.plane, self.row, stop=self.stop, on_trouble=lambda _: None), "projector"
        )
        self.told: list[tuple[str, int | str, str]] = []
        self.at = 0

    def close(self) -> None:
        """Stop everything."""
        self.stop.set()
        self.projecting.join(RECOVERY_SECONDS)
        self.stack.close()

    def append(self, count: int, during: threading.Event, deadline: float) -> None:
        """Append the next records, each until the log says where it stands; then copies, as long as `during` is set."""
        stop = min(self.at + count, len(self.deliveries))
        while self.at < stop or during.is_set():
            first = self.at if self.at < stop else max(0, stop - BATCH)
            places = list(range(first, min(first + BATCH, stop)))
            self.at = max(self.at, places[-1] + 1)
            while places:
                places = persist(partial(self._send, places), (LogUnavailable,), deadline)
                if places and time.monotonic() > deadline:
                    raise TimeoutError(f"{len(places)} records are refused by the log")
            time.sleep(_PACE_SECONDS)

    def _send(self, places: Sequence[int]) -> list[int]:
        """Append these records; those that the log did not take."""
        left = []
        for place in places:
            part = self.deliveries.part(place, place + 1)
            (placed,) = self.log.append_columns(part.columns(), part.admitted_at).placed
            if isinstance(placed, Refusal):
                assert placed.reason is RefusalReason.LOG_UNAVAILABLE, placed
                left.append(place)
            else:
                self.told.append((*placed, part.event_ids[0]))
        return left

    def period(self, planned: list[list[Fault]], records: int, seconds: float, findings: Findings) -> None:
        """One disturbed period and its end."""
        findings.periods += 1
        name = title(findings.periods, planned)
        during = threading.Event()
        during.set()
        latest = time.monotonic() + seconds + PATIENCE_SECONDS * len(planned[0]) + RECOVERY_SECONDS
        producing = Worker(lambda: self.append(records, during, latest), "producer")
        for _ in disturbed(self.proxies, planned, seconds):
            time.sleep(0.02)
        during.clear()
        well = time.monotonic()
        if trouble := self._recovers(producing, well + RECOVERY_SECONDS):
            findings.hung.append(f"{name}: {trouble}")
            return
        findings.recovery_seconds.append(time.monotonic() - well)
        findings.wrong += [f"{name}: {text}" for text in self._wrong()]

    def _recovers(self, producing: Worker, deadline: float) -> str:
        """Wait until everything is done; otherwise, what is not."""
        if not producing.join(deadline - time.monotonic()) or producing.error is not None:
            return f"the producer: {producing.error or 'hangs'!r}"
        head = self.direct.log.ends()
        while not _same_place(self.direct.row(self.row.projection_id).basis, head):
            if self.projecting.done or time.monotonic() > deadline:
                return f"the projector: {self.projecting.error or 'does not reach the head'!r}"
            time.sleep(0.02)
        return ""

    def _wrong(self) -> list[str]:
        """What the log and the state have wrong now."""
        self.oracle.read()
        found = []
        ids = {(record.partition_id, record.offset): record.envelope["event_id"] for record in self.oracle.records}
        for partition, offset, event_id in self.told:
            if ids.get((partition, self.oracle.position(partition, offset))) != event_id:
                found.append(f"{event_id} was told to stand at {partition}/{offset} and does not")
        self.told = []
        row = self.direct.row(self.row.projection_id)
        reader = self.direct.reader(row)
        return found + self.oracle.wrong([(one, row.basis, reader.answer(one.body(PINS)).hash) for one in self.questions])


def _same_place(basis: Basis, head: Basis) -> bool:
    known = {part.partition_id: part.offset for part in basis.partitions}
    return all(known.get(part.partition_id, "") == part.offset for part in head.partitions)


def torture_kinesis(server: str, aws_at: tuple[str, int], folder: Path, seed: int, periods: int) -> Findings:
    """The periods, in one world."""
    findings = Findings()
    chance = random.Random(seed)
    with impatient(), mock.patch.object(kinesis, "ANSWER_SECONDS", ANSWER_SECONDS):
        world = KinesisWorld(server, aws_at, folder / "kinesis", seed, 40 * periods)
        try:
            for planned in schedule(seed, periods, 2):
                world.period(planned, 40, chance.uniform(0.5, 1.5), findings)
            findings.injected("Kinesis", *world.proxies)
        finally:
            world.close()
    return findings
