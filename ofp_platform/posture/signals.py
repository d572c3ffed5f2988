"""The signals of posture: declared names, and how each is read as an integer. What cannot be read is absent, and counts as bad.

Those of the service are read over HTTP, out of its health document; those of log and ingress out of tables, as they are now.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import psycopg
from psycopg import Connection

from ofp_platform.client import AnswerNotTrusted, AsyncOfpClient, ServiceUnreachable
from ofp_platform.ingress.publish_rows import count_on_their_way
from ofp_platform.ingress.receipts import count_receipts
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.loop.posture import PosturePolicy
from ofp_platform.vocabulary.serving import Health, PostureState
from ofp_platform.vocabulary.times import MICROS_PER_SECOND

_HOUR = 3600 * MICROS_PER_SECOND
_NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_NEWEST = """
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - max(last_broker_time)
    FROM ofp.log_head WHERE stream_name = %s AND next_offset > 0"""
logger = logging.getLogger(__name__)


class UnknownSignal(Exception):
    """A policy names a signal that nobody reads; the text lists those that there are."""


@dataclass(frozen=True)
class Place:
    """Where the signals of tables are read: a run and its stream of traffic."""

    connection: Connection[Any]
    pins: ContextPins
    stream_name: str


def _failed_share(health: Health) -> int | None:
    built_count, failure_count = health.counters.get("snapshots_built"), health.counters.get("snapshot_failures")
    if built_count is None or failure_count is None:
        return None
    return failure_count * 1_000_000 // max(1, built_count + failure_count)


def _lag(health: Health) -> int | None:
    return sum(part.lag_records for part in health.partitions) if health.partitions else None


def _log_age(place: Place) -> int | None:
    row = place.connection.execute(_NEWEST, (place.stream_name,)).fetchone()
    return None if row is None or row[0] is None else max(0, int(row[0])) // MICROS_PER_SECOND


def _ambiguous(place: Place) -> int:
    return count_on_their_way(place.connection, pins_digest(place.pins))[1]


def _quarantine_share(place: Place) -> int:
    row = place.connection.execute(_NOW).fetchone()
    assert row is not None
    counts = count_receipts(place.connection, place.pins, int(row[0]) - _HOUR)
    return counts["set_aside"] * 1_000_000 // max(1, counts["sent"])


OF_SERVICE: Mapping[str, tuple[str, Callable[[Health], int | None]]] = {
    "projection_posture": ("of the service: 0 GREEN, 1 AMBER, 2 RED", lambda health: list(PostureState).index(health.state)),
    "lag_records": ("records that the projection has not applied", _lag),
    "watermark_age_seconds": ("the service's clock less the projection's watermark", lambda health: health.watermark_age_seconds),
    "failed_ppm": ("questions that were refused or failed, of a million since the worker that answers started", _failed_share),
}
"""By name: its meaning, and how it is read of a health document."""
OF_TABLES: Mapping[str, tuple[str, Callable[[Place], int | None]]] = {
    "log_age_seconds": ("since the newest record of the stream of traffic, where the log is PostgreSQL", _log_age),
    "ambiguous_publishes": ("records of which nobody knows whether the log has them", _ambiguous),
    "quarantine_ppm": ("records set aside in the last hour, of a million sent; 0 where none was sent", _quarantine_share),
}
"""The same, read of tables."""


def demand_known(policy: PosturePolicy) -> None:
    """Refuse a policy that would be bad for ever, for want of who reads a signal.

    Raises:
        UnknownSignal: it names a signal that is none.
    """
    known_names = sorted([*OF_SERVICE, *OF_TABLES])
    if strange := [name for name in policy.signals if name not in known_names]:
        raise UnknownSignal(f"posture.thresholds: nobody reads {', '.join(strange)}; there are {', '.join(known_names)}")


class HealthQuestions:
    """Asks a service for its health, within `seconds` from beginning to end, however slowly it answers; used in a `with`."""

    def __init__(self, client: AsyncOfpClient, seconds: float) -> None:
        self._client = client
        self._seconds = seconds
        self._runner = asyncio.Runner()

    def ask(self) -> Health:
        """The health as it is now.

        Raises:
            ContractError | AnswerNotTrusted: see `AsyncOfpClient.health`. ServiceUnreachable: also where no whole answer came.
        """
        return self._runner.run(self._ask())

    async def _ask(self) -> Health:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._client.health()
        except TimeoutError:
            raise ServiceUnreachable(f"GET /health: no whole answer within {self._seconds:g} s") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


def read_signals(
    policy: PosturePolicy, ask_health: Callable[[], Health], pool: Pool, pins: ContextPins, stream_name: str
) -> dict[str, int | None]:
    """The signals that a policy asks for, as they are now; None: it cannot be read, which a line of the log explains.

    `ask_health`: of the service; `HealthQuestions.ask` is one.
    """
    signals: dict[str, int | None] = dict.fromkeys(policy.signals)
    if of_service := [name for name in policy.signals if name in OF_SERVICE]:
        try:
            health = ask_health()
            signals |= {name: OF_SERVICE[name][1](health) for name in of_service}
        except (ContractError, ServiceUnreachable, AnswerNotTrusted) as error:
            logger.warning("the service does not tell its health: %s", error)
    if of_tables := [name for name in policy.signals if name in OF_TABLES]:
        try:
            with pool.connection() as connection:
                place = Place(connection, pins, stream_name)
                signals |= {name: OF_TABLES[name][1](place) for name in of_tables}
        except (psycopg.Error, OSError) as error:
            logger.warning("the database does not answer: %s", type(error).__name__)
    return signals
