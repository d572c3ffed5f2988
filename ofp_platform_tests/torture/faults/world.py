"""A log that is written and projected through disturbed networks, and held against the oracle after every period."""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import ClassVar

from ofp_platform.online.plane import Plane
from ofp_platform.online.projecting.continuous import run_continuous
from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.simulation.disturbances import Disturbances
from ofp_platform.simulation.payments import PaymentSimulation, simulate_payments
from ofp_platform.simulation.population import PopulationSize
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.profile import Profile
from ofp_platform_tests.oracle.simulated_log import PINS
from ofp_platform_tests.torture.faults.oracle import LogOracle, Question, questions_about
from ofp_platform_tests.torture.faults.periods import (
    PATIENCE_SECONDS,
    RECOVERY_SECONDS,
    Findings,
    Worker,
    disturbed,
    persist,
    title,
)
from ofp_platform_tests.torture.faults.proxy import Fault, FaultProxy, Upstream

BATCH = 10
NAMES = {"account": "account_id", "merchant": "merchant_id"}
Answered = tuple[Question, Basis, str]


def payments(count: int, seed: int) -> Deliveries:
    """Payments of a few accounts, with copies, retries, late events and events that must not be applied."""
    few = PopulationSize(customers=12, accounts=15, merchants=15)
    some = max(2, count // 60)
    wrong = Disturbances(duplicates=some, retries=some, future=2, wrong_type=2, missing_field=2, foreign_pins=2, conflicts=2)
    pins = ContextPins.model_validate(PINS)
    return simulate_payments(
        PaymentSimulation(pins=pins, seed=seed, payments=count, days=2, size=few, disturbances=wrong)
    ).deliveries


class LogWorld(ABC):
    """One log, its producer and its projector behind proxies, and one who looks at it undisturbed (`direct`)."""

    passing: ClassVar[tuple[type[Exception], ...]]
    """What may go wrong while records are sent, and is tried again."""
    pace_seconds: ClassVar[float]

    def __init__(self, chosen: Profile, dsn: str, deliveries: Deliveries, seed: int, upstream: Upstream, ways: int) -> None:
        self.stack = ExitStack()
        self.seed = seed
        self.deliveries = deliveries
        self.direct = self.stack.enter_context(Plane.open(chosen, dsn))
        self.row = self.direct.ensure_live()
        self.oracle = LogOracle(self.direct.log, chosen, self.direct.registry_of(self.row))
        self.questions = questions_about(deliveries, self.oracle.registry, NAMES)
        self.proxies = [self.stack.enter_context(FaultProxy(upstream, seed + way)) for way in range(ways)]
        self.stop = threading.Event()
        self.chance = random.Random(seed)
        self.told: list[tuple[str, int | str, str]] = []
        self.at = 0

    def project(self, plane: Plane) -> None:
        """Begin to project, by way of that plane."""

        def work() -> None:
            run_continuous(
                lambda: plane.projector(self.row),
                plane.log,
                plane.dsn,
                self.row.projection_id,
                batch_records=plane.profile.batch_records,
                stop=self.stop,
                on_trouble=lambda _: None,
            )

        self.projecting = Worker(work, "projector")

    def close(self) -> None:
        """Stop everything."""
        self.stop.set()
        self.projecting.join(RECOVERY_SECONDS)
        self.stack.close()

    @abstractmethod
    def send(self, places: Sequence[int]) -> list[int]:
        """Append these deliveries, note in `told` where the log says they stand; those that it did not take."""

    @abstractmethod
    def meanwhile(self) -> None:
        """What else is done during a period, again and again."""

    def append(self, count: int, during: threading.Event, deadline: float) -> None:
        """Append the next records, each until the log says where it stands; then copies, as long as `during` is set."""
        stop = min(self.at + count, len(self.deliveries))
        while self.at < stop or during.is_set():
            first = self.at if self.at < stop else max(0, stop - BATCH)
            places = list(range(first, min(first + BATCH, stop)))
            self.at = max(self.at, places[-1] + 1)
            while places:
                places = persist(partial(self.send, places), self.passing, deadline)
                if places and time.monotonic() > deadline:
                    raise TimeoutError(f"{len(places)} records are refused by the log")
            time.sleep(self.pace_seconds)

    def period(self, planned: list[list[Fault]], records: int, seconds: float, findings: Findings) -> None:
        """One disturbed period and its end."""
        self.chance = random.Random(self.seed + findings.periods)
        findings.periods += 1
        name = title(findings.periods, planned)
        during = threading.Event()
        during.set()
        latest = time.monotonic() + seconds + PATIENCE_SECONDS * len(planned[0]) + RECOVERY_SECONDS
        producing = Worker(lambda: self.append(records, during, latest), "producer")
        for _ in disturbed(self.proxies, planned, seconds):
            self.meanwhile()
        during.clear()
        well = time.monotonic()
        if trouble := self.recovers(producing, well + RECOVERY_SECONDS):
            findings.hung.append(f"{name}: {trouble}")
            return
        findings.recovery_seconds.append(time.monotonic() - well)
        findings.wrong += [f"{name}: {text}" for text in self.wrong()]

    def recovers(self, producing: Worker, deadline: float) -> str:
        """Wait until everything is done; otherwise, what is not."""
        if not producing.join(deadline - time.monotonic()) or producing.error is not None:
            return f"the producer: {producing.error or 'hangs'!r}"
        head = self.direct.log.ends()
        while not _same_place(self.direct.row(self.row.projection_id).basis, head):
            if self.projecting.done or time.monotonic() > deadline:
                return f"the projector: {self.projecting.error or 'does not reach the head'!r}"
            time.sleep(0.01)
        return ""

    def wrong(self, served: Sequence[Answered] = ()) -> list[str]:
        """What the log, the state and what was served have wrong now."""
        self.oracle.read()
        found = []
        ids = {(record.partition_id, record.offset): record.envelope["event_id"] for record in self.oracle.records}
        for partition, offset, event_id in self.told:
            if ids.get((partition, self.oracle.position(partition, offset))) != event_id:
                found.append(f"{event_id} was told to stand at {partition}/{offset} and does not")
        self.told = []
        row = self.direct.row(self.row.projection_id)
        reader = self.direct.reader(row)
        here = [(one, row.basis, reader.answer(one.body(PINS)).hash) for one in self.questions]
        return found + self.oracle.wrong([*here, *served])


def _same_place(basis: Basis, head: Basis) -> bool:
    known = {part.partition_id: part.offset for part in basis.partitions}
    # a partition without a record (offset 0, or no token) need not be in a basis
    return all((known.get(part.partition_id) or None) == (part.offset or None) for part in head.partitions)
