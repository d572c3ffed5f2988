"""Faults between the plane and PostgreSQL: a producer, a projector and the HTTP service, each behind a proxy of its own.

All three work while their networks misbehave in different ways. Then all is well, and before the next period the log must hold
what the producer was told, the projector must stand at its head, and the service must answer from there, as the oracle would.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psycopg
from psycopg import conninfo, sql
from psycopg_pool import PoolTimeout
from starlette.types import ASGIApp

from benchmarks.servers import plane_app
from ofp_platform.api.received import parse, verify
from ofp_platform.log.port import LogUnavailable, Refusal
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.online.continuous import run_continuous
from ofp_platform.online.plane import Plane
from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.simulation.disturbances import Disturbances
from ofp_platform.simulation.payments import PaymentSimulation, simulate_payments
from ofp_platform.simulation.population import PopulationSize
from ofp_platform.storage import postgres
from ofp_platform.storage.postgres import open_pool
from ofp_platform.storage.schema import migrate
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.serving import GetFeaturesResponse
from ofp_platform_tests.oracle.simulated_log import PINS, profile
from ofp_platform_tests.torture.fault_proxy import Fault, FaultProxy
from ofp_platform_tests.torture.faults_oracle import LogOracle, Question, questions_about
from ofp_platform_tests.torture.faults_periods import (
    PATIENCE_SECONDS,
    RECOVERY_SECONDS,
    SILENT_SECONDS,
    Findings,
    Worker,
    disturbed,
    impatient,
    persist,
    schedule,
    through,
    title,
    upstream_of,
)
from ofp_platform_tests.torture.own_service import own_service

BATCH = 10
_PACE_SECONDS = 0.08
DEADLINE_SECONDS = 6.0
"""A request has its answer by then, whatever the store does: 3 s for the store, a second to give a connection up, and slack."""
PASSING = (LogUnavailable, PoolTimeout, psycopg.OperationalError)
NAMES = {"account": "account_id", "merchant": "merchant_id"}
_RETRY = "retry-after"


def database(server: str, name: str) -> str:
    """A new, migrated database on a server; its DSN."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    dsn = conninfo.make_conninfo(server, dbname=name)
    migrate(dsn)
    return dsn


def payments(count: int, seed: int) -> Deliveries:
    """Payments of a few accounts, with copies, retries, late events and events that must not be applied."""
    few = PopulationSize(customers=12, accounts=15, merchants=15)
    some = max(2, count // 60)
    wrong = Disturbances(duplicates=some, retries=some, future=2, wrong_type=2, missing_field=2, foreign_pins=2, conflicts=2)
    pins = ContextPins.model_validate(PINS)
    return simulate_payments(
        PaymentSimulation(pins=pins, seed=seed, payments=count, days=2, size=few, disturbances=wrong)
    ).deliveries


def impatient_app(chosen: Profile, dsn: str) -> ASGIApp:
    """The service, in a process of its own, with the bound of these periods."""
    postgres.SILENT_SECONDS = SILENT_SECONDS
    return plane_app(chosen, dsn, 1 << 20)


@dataclass
class Asked:
    """What the service said during and after the periods."""

    requests: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    longest_seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    answers: dict[tuple[int, str], GetFeaturesResponse] = field(default_factory=dict)

    def ask(self, port: int, questions: list[Question], number: int) -> str | None:
        """Ask one question. The basis of the answer; None when it was refused as it may be."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2 * DEADLINE_SECONDS)
        began = time.monotonic()
        self.requests += 1
        try:
            connection.request("POST", "/v0/get_features", questions[number].body(PINS))
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.wrong.append(f"no answer: {type(error).__name__} {error}")
            return None
        finally:
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
            connection.close()
        if response.status == 200:
            features = parse(GetFeaturesResponse, body)
            basis = features.provenance.input_basis.model_dump_json()
            if features.provenance.feature_snapshot_hash != response.headers["ofp-snapshot-hash"]:
                self.wrong.append("the header names another hash than the body")
            if _stated(self.answers.setdefault((number, basis), features)) != _stated(features):
                self.wrong.append(f"two answers to one question on one basis: {questions[number].keys}")
            return basis
        reason = body.partition(b'"reason":"')[2].partition(b'"')[0].decode()
        self.refused[reason] += 1
        if response.status != 503 or _RETRY not in response.headers or reason in ("INTERNAL", "SNAPSHOT_CORRUPT", ""):
            self.wrong.append(f"{response.status} {reason}: {body[:200]!r}")
        return None


def _stated(features: GetFeaturesResponse) -> str:
    """What an answer says of the question: all of it but the posture, which is the service's own state at that moment."""
    return features.model_dump_json(exclude={"provenance": {"posture"}})


class StoreWorld:
    """One database, the three that use it through proxies, and one who looks at it undisturbed."""

    def __init__(self, server: str, folder: Path, seed: int, records: int) -> None:
        self.stack = ExitStack()
        self.seed = seed
        self.dsn = database(server, f"faults_{seed:x}")
        self.deliveries = payments(records, seed % 1_000)
        folder.mkdir(parents=True, exist_ok=True)
        chosen = profile(folder)
        self.direct = self.stack.enter_context(Plane.open(chosen, self.dsn))
        self.row = self.direct.ensure_live()
        self.oracle = LogOracle(self.direct.log, chosen, self.direct.registry_of(self.row))
        self.questions = questions_about(self.deliveries, self.oracle.registry, NAMES)
        upstream = upstream_of(server)
        self.proxies = [self.stack.enter_context(FaultProxy(upstream, seed + way)) for way in range(3)]
        producer, projector, serving = (through(proxy, self.dsn) for proxy in self.proxies)
        self.log = PostgresLog.open(self.stack.enter_context(open_pool(producer, max_size=2)), chosen.stream_name)
        self.plane = self.stack.enter_context(Plane.open(chosen, projector, max_connections=3))
        self.port, _ = self.stack.enter_context(own_service(partial(impatient_app, chosen, serving)))
        self.asked = Asked()
        self.stop = threading.Event()
        self.projecting = Worker(
            lambda: run_continuous(self.plane, self.row, stop=self.stop, on_trouble=lambda _: None), "projector"
        )
        self.told: list[tuple[str, int | str, str]] = []
        self.at = 0

    def close(self) -> None:
        """Stop everything and drop the database."""
        self.stop.set()
        self.projecting.join(RECOVERY_SECONDS)
        self.stack.close()

    def append(self, count: int, during: threading.Event, deadline: float) -> None:
        """Append the next records, each batch until the log says where it stands; then copies, as long as `during` is set."""
        stop = min(self.at + count, len(self.deliveries))
        while self.at < stop or during.is_set():
            first = self.at if self.at < stop else max(0, stop - BATCH)
            part = self.deliveries.part(first, min(first + BATCH, stop))
            receipt = persist(partial(self.log.append_columns, part.columns(), part.admitted_at), PASSING, deadline)
            for placed, event_id in zip(receipt.placed, part.event_ids, strict=True):
                assert not isinstance(placed, Refusal)
                self.told.append((*placed, event_id))
            self.at = max(self.at, first + len(part))
            time.sleep(_PACE_SECONDS)

    def period(self, planned: list[list[Fault]], records: int, seconds: float, findings: Findings) -> None:
        """One disturbed period and its end."""
        chance = random.Random(self.seed + findings.periods)
        findings.periods += 1
        name = title(findings.periods, planned)
        during = threading.Event()
        during.set()
        latest = time.monotonic() + seconds + PATIENCE_SECONDS * len(planned[0]) + RECOVERY_SECONDS
        producing = Worker(lambda: self.append(records, during, latest), "producer")
        for _ in disturbed(self.proxies, planned, seconds):
            self.asked.ask(self.port, self.questions, chance.randrange(len(self.questions)))
            time.sleep(0.01)
        during.clear()
        well = time.monotonic()
        if trouble := self._recovers(producing, chance, well + RECOVERY_SECONDS):
            findings.hung.append(f"{name}: {trouble}")
            return
        findings.recovery_seconds.append(time.monotonic() - well)
        findings.wrong += [f"{name}: {text}" for text in self._wrong(chance)]

    def _recovers(self, producing: Worker, chance: random.Random, deadline: float) -> str:
        """Wait until everything is done; otherwise, what is not."""
        if not producing.join(deadline - time.monotonic()) or producing.error is not None:
            return f"the producer: {producing.error or 'hangs'}"
        head = self.direct.log.ends()
        while self.direct.row(self.row.projection_id).basis != head:
            if self.projecting.done or time.monotonic() > deadline:
                return f"the projector: {self.projecting.error or 'does not reach the head'}"
            time.sleep(0.01)
        while True:
            number = chance.randrange(len(self.questions))
            if self.asked.ask(self.port, self.questions, number) == head.model_dump_json():
                return ""
            if time.monotonic() > deadline:
                return "the service does not reach the head"
            time.sleep(0.02)

    def _wrong(self, chance: random.Random) -> list[str]:
        """What the log, the state and the answers have wrong now."""
        self.oracle.read()
        found = self.asked.wrong
        self.asked.wrong = []
        ids = {(record.partition_id, record.offset): record.envelope["event_id"] for record in self.oracle.records}
        for partition, offset, event_id in self.told:
            if ids.get((partition, self.oracle.position(partition, offset))) != event_id:
                found.append(f"{event_id} was told to stand at {partition}/{offset} and does not")
        self.told = []
        row = self.direct.row(self.row.projection_id)
        reader = self.direct.reader(row)
        asked = [(one, row.basis, reader.answer(one.body(PINS)).hash) for one in self.questions]
        served = [(place, self.asked.answers[place]) for place in sorted(self.asked.answers)]
        served = chance.sample(served, min(10, len(served)))
        for (number, text), features in served:
            asked.append((self.questions[number], Basis.model_validate_json(text), verify(features)))
        self.asked.answers.clear()
        return found + self.oracle.wrong(asked)


def torture_store(server: str, folder: Path, seed: int, periods: int) -> tuple[Findings, Asked]:
    """The periods, one world for every 40 of them."""
    findings, total = Findings(), Asked()
    chance = random.Random(seed)
    planned = list(schedule(seed, periods, 3))
    with impatient():
        for first in range(0, periods, 40):
            part = planned[first : first + 40]
            world = StoreWorld(server, folder / f"store-{first}", seed + first, 40 * len(part))
            try:
                for each in part:
                    world.period(each, 40, chance.uniform(0.6, 1.6), findings)
                findings.injected("PostgreSQL", *world.proxies)
                total.requests += world.asked.requests
                total.refused.update(world.asked.refused)
                total.longest_seconds = max(total.longest_seconds, world.asked.longest_seconds)
            finally:
                world.close()
    return findings, total
