"""Faults between the plane and PostgreSQL: a producer, a projector and the HTTP service, each behind a proxy of its own.

All three work while their networks misbehave in different ways. Then all is well, and before the next period the log must hold
what the producer was told, the projector must stand at its head, and the service must answer from there, as the oracle would.
"""

from __future__ import annotations

import http.client
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psycopg
from psycopg_pool import PoolTimeout
from starlette.types import ASGIApp

from benchmarks.keys import KEY
from benchmarks.servers import plane_app, service
from ofp_platform.client import verify
from ofp_platform.client.answer import parse
from ofp_platform.log.port import LogUnavailable, RecordRefusal
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.online.plane import Plane
from ofp_platform.storage import postgres
from ofp_platform.storage.postgres import open_pool
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.serving import GetFeaturesResponse
from ofp_platform_tests.oracle.simulated_log import PINS, profile
from ofp_platform_tests.torture.faults.oracle import Question
from ofp_platform_tests.torture.faults.periods import (
    SILENT_SECONDS,
    Findings,
    Worker,
    impatient,
    schedule,
    through,
    upstream_of,
)
from ofp_platform_tests.torture.faults.world import Answered, LogWorld, payments
from ofp_platform_tests.torture.own_database import fresh_database

DEADLINE_SECONDS = 6.0
"""A request has its answer by then, whatever the store does: 3 s for the store, a second to give a connection up, and slack."""
_RETRY = "retry-after"


def impatient_app(chosen: Profile, dsn: str) -> ASGIApp:
    """The service, in a process of its own, with the bound of these periods."""
    postgres.SILENT_SECONDS = SILENT_SECONDS
    return plane_app(chosen, dsn, 1 << 20)


_HEADERS = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}


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
            connection.request("POST", "/v0/get_features", questions[number].body(PINS), _HEADERS)
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


class StoreWorld(LogWorld):
    """One database, and the three that use it through proxies: producer, projector and service."""

    passing = (LogUnavailable, PoolTimeout, psycopg.OperationalError)
    pace_seconds = 0.08

    def __init__(self, server: str, folder: Path, seed: int, records: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        dsn = fresh_database(server, f"faults_{seed:x}")
        chosen = profile(folder)
        super().__init__(chosen, dsn, payments(records, seed % 1_000), seed, upstream_of(server), ways=3)
        producer, projector, serving = (through(proxy, dsn) for proxy in self.proxies)
        self.log = PostgresLog.open(self.stack.enter_context(open_pool(producer, max_size=2)), chosen.stream_name)
        plane = self.stack.enter_context(Plane.open(chosen, projector, max_connections=3))
        self.port, _ = self.stack.enter_context(service(partial(impatient_app, chosen, serving)))
        self.asked = Asked()
        self.project(plane)

    def send(self, places: Sequence[int]) -> list[int]:
        """See LogWorld."""
        part = self.deliveries.part(places[0], places[-1] + 1)
        receipt = self.log.append_columns(part.columns(), part.admitted_at)
        for placed, event_id in zip(receipt.placed, part.event_ids, strict=True):
            assert not isinstance(placed, RecordRefusal)
            self.told.append((*placed, event_id))
        return []

    def meanwhile(self) -> None:
        """See LogWorld."""
        self._ask()
        time.sleep(0.01)

    def _ask(self) -> str | None:
        return self.asked.ask(self.port, self.questions, self.chance.randrange(len(self.questions)))

    def recovers(self, producing: Worker, deadline: float) -> str:
        """See LogWorld; the service, too, must come to the head."""
        trouble = super().recovers(producing, deadline)
        head = self.direct.log.ends().model_dump_json()
        while not trouble and self._ask() != head:
            if time.monotonic() > deadline:
                return "the service does not reach the head"
            time.sleep(0.02)
        return trouble

    def wrong(self, served: Sequence[Answered] = ()) -> list[str]:
        """See LogWorld; some of what was served on the way, too, is held against the oracle."""
        found, self.asked.wrong = self.asked.wrong, []
        answers = self.asked.answers
        for number, text in self.chance.sample(sorted(answers), min(10, len(answers))):
            served = [*served, (self.questions[number], Basis.model_validate_json(text), verify(answers[number, text]))]
        answers.clear()
        return found + super().wrong(served)


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
