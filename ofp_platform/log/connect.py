"""The log that a profile names, made when it is not there."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Literal, assert_never

import psycopg

from ofp_platform.log.port import EventLog, LogUnavailable, StreamNotFound
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.log.shard_evidence import StoredEvidence
from ofp_platform.storage.postgres import DatabaseUnavailable, Pool, open_pool
from ofp_platform.vocabulary.profile import Profile

logger = logging.getLogger(__name__)
LogKind = Literal["postgres", "kinesis", "kafka"]
_LISTED_SECONDS = 3.0


def connect_log(
    pool: Pool,
    *,
    kind: LogKind,
    stream_name: str,
    partitions: int,
    partition_key: str,
    kinesis_endpoint_url: str | None,
    kinesis_retention_hours: int | None,
    kafka_retention_ms: int,
    create: bool = True,
    is_archived: Callable[[], bool] = lambda: False,
) -> EventLog:
    """Open the stream, or create it with that many partitions. Close the log before the pool.

    A log in PostgreSQL whose archive has records already (`is_archived`) is made unsettled: it is not the one that was archived.
    Kinesis keeps records for at least that many hours then, and a Kafka topic that is made for that many milliseconds; how Kafka
    is reached stands in the environment. One of the two that does not answer is opened all the same unless it is to be created.

    Raises:
        StreamNotFound: there is none, and it is not to be created. LogUnavailable: the log does not answer.
        LogMisconfigured: it could lose or change records as it is set, or the environment does not say how to reach it.
    """
    match kind:
        case "postgres":
            try:
                return PostgresLog.open(pool, stream_name)
            except StreamNotFound:
                if not create:
                    raise
                return PostgresLog.create(pool, stream_name, partitions, partition_key, settled=not is_archived())
        case "kinesis":
            # a process whose log is no Kinesis starts without boto3, a fifth of a second
            from ofp_platform.log.kinesis import KinesisLog, kinesis_client

            client = kinesis_client(kinesis_endpoint_url)
            try:
                evidence = StoredEvidence(pool, stream_name)
                if create:
                    log = KinesisLog.create(client, stream_name, partitions, partition_key, evidence=evidence)
                    if kinesis_retention_hours is not None:
                        log.keep_for(kinesis_retention_hours)
                    return log
                log = KinesisLog(client, stream_name, partition_key, evidence=evidence)
                with suppress(LogUnavailable):  # whoever reads it meets the outage; who serves what is applied does not
                    log.partitions()
                return log
            except BaseException:
                client.close()
                raise
        case "kafka":
            from ofp_platform.log.kafka import KafkaLog  # as with boto3: a process whose log is no Kafka starts without it
            from ofp_platform.log.kafka_settings import KafkaSettings

            settings = KafkaSettings.of_environment(os.environ)
            if create:
                return KafkaLog.create(settings, stream_name, partitions, partition_key, retention_ms=kafka_retention_ms)
            topic_log = KafkaLog(settings, stream_name, partitions, partition_key)
            try:
                with suppress(LogUnavailable):  # see above
                    topic_log.partitions()
                return topic_log
            except BaseException:
                topic_log.close()
                raise
        case _:
            assert_never(kind)


def first_partition_ids(kind: LogKind, count: int) -> list[str]:
    """The ids of the partitions of a new stream, as a log of that kind names them."""
    match kind:
        case "postgres":
            return PostgresLog.first_partition_ids(count)
        case "kinesis":
            from ofp_platform.log.kinesis import KinesisLog  # see above

            return KinesisLog.first_partition_ids(count)
        case "kafka":
            from ofp_platform.log.kafka import KafkaLog  # see above

            return KafkaLog.first_partition_ids(count)
        case _:
            assert_never(kind)


def listed_partition_ids(profile: Profile, dsn: str | None) -> list[str]:
    """The ids of the partitions that the stream has now; of a new one, where there is none yet or it does not answer in time.

    `dsn` is of the database that has the stream of log_kind postgres; None: it is not known, and the profile's number counts.
    """
    first_ids = first_partition_ids(profile.log_kind, profile.partitions)
    match profile.log_kind:
        case "postgres":
            return first_ids if dsn is None else _listed_in_postgres(profile, dsn, first_ids)
        case "kinesis":
            return _listed_in_kinesis(profile, first_ids)
        case "kafka":
            return first_ids  # a topic with another number of partitions is refused
        case _:
            assert_never(profile.log_kind)


def _listed_in_postgres(profile: Profile, dsn: str, first_ids: list[str]) -> list[str]:
    try:
        with open_pool(dsn, max_size=1, timeout_seconds=_LISTED_SECONDS) as pool:
            return [info.partition_id for info in PostgresLog.open(pool, profile.stream_name).partitions()]
    except (DatabaseUnavailable, LogUnavailable, StreamNotFound, psycopg.errors.UndefinedTable) as error:
        logger.warning("partitions as in the profile: %s", error)
        return first_ids


def _listed_in_kinesis(profile: Profile, first_ids: list[str]) -> list[str]:
    from botocore.exceptions import BotoCoreError

    from ofp_platform.log.kinesis import KinesisLog, kinesis_client  # see above

    try:
        with closing(kinesis_client(profile.kinesis_endpoint_url)) as client:
            infos = KinesisLog(client, profile.stream_name, profile.partition_key, attempts=1).partitions()
    except (LogUnavailable, StreamNotFound, BotoCoreError) as error:
        logger.warning("partitions as in the profile: %s", error)
        return first_ids
    # shards are numbered in the order in which they were opened: those before are listed no more, and have their history
    count = 1 + max((int(info.partition_id.rpartition("-")[2]) for info in infos), default=len(first_ids) - 1)
    return KinesisLog.first_partition_ids(count)
