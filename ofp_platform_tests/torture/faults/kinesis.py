"""Faults between the plane and Kinesis: a producer and a projector, each behind a proxy, with their PostgreSQL undisturbed."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from ofp_platform.log import kinesis
from ofp_platform.log.kinesis import KinesisLog, kinesis_client
from ofp_platform.log.port import LogUnavailable, RecordRefusal, RefusalReason
from ofp_platform.online.plane import Plane
from ofp_platform_tests.oracle.simulated_log import profile
from ofp_platform_tests.torture.faults.periods import Findings, impatient, schedule
from ofp_platform_tests.torture.faults.world import LogWorld, payments
from ofp_platform_tests.torture.own_database import fresh_database

ANSWER_SECONDS = 1.0


class KinesisWorld(LogWorld):
    """A stream, its producer and its projector through proxies."""

    passing = (LogUnavailable,)
    pace_seconds = 0.1

    def __init__(self, server: str, aws_at: tuple[str, int], folder: Path, seed: int, records: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        dsn = fresh_database(server, f"faults_kinesis_{seed:x}")
        name = f"payments-{seed:x}"
        chosen = profile(folder, log_kind="kinesis", stream_name=name, kinesis_endpoint_url=f"http://{aws_at[0]}:{aws_at[1]}")
        super().__init__(chosen, dsn, payments(records, seed % 1_000), seed, aws_at, ways=2)
        urls = [f"http://127.0.0.1:{proxy.port}" for proxy in self.proxies]
        self.log = KinesisLog(kinesis_client(urls[0]), name, chosen.partition_key)
        self.stack.callback(self.log.close)
        behind = chosen.model_copy(update={"kinesis_endpoint_url": urls[1]})
        self.project(self.stack.enter_context(Plane.open(behind, dsn, max_connections=3)))

    def send(self, places: Sequence[int]) -> list[int]:
        """See LogWorld."""
        left = []
        for place in places:
            part = self.deliveries.part(place, place + 1)
            (placed,) = self.log.append_columns(part.columns(), part.admitted_at).placed
            if isinstance(placed, RecordRefusal):
                assert placed.reason is RefusalReason.LOG_UNAVAILABLE, placed
                left.append(place)
            else:
                self.told.append((*placed, part.event_ids[0]))
        return left

    def meanwhile(self) -> None:
        """See LogWorld."""
        time.sleep(0.02)


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
