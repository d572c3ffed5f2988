"""The log that a profile names, made when it is not there."""

from __future__ import annotations

from typing import Literal, assert_never

from ofp_platform.log.port import EventLog, StreamNotFound
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.storage.postgres import Pool

LogKind = Literal["postgres", "kinesis"]


def connect_log(
    pool: Pool,
    *,
    kind: LogKind,
    stream_name: str,
    partitions: int,
    partition_key: str,
    kinesis_endpoint_url: str | None,
    create: bool = True,
) -> EventLog:
    """Open the stream, or create it with that many partitions. Close the log before the pool.

    Raises:
        StreamNotFound: there is none, and it is not to be created. LogUnavailable: the log does not answer.
    """
    match kind:
        case "postgres":
            try:
                return PostgresLog.open(pool, stream_name)
            except StreamNotFound:
                if not create:
                    raise
                return PostgresLog.create(pool, stream_name, partitions, partition_key)
        case "kinesis":
            # a process whose log is no Kinesis starts without boto3, a fifth of a second
            from ofp_platform.log.kinesis import KinesisLog, kinesis_client

            client = kinesis_client(kinesis_endpoint_url)
            try:
                if create:
                    return KinesisLog.create(client, stream_name, partitions, partition_key)
                log = KinesisLog(client, stream_name, partition_key)
                log.partitions()
                return log
            except BaseException:
                client.close()
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
        case _:
            assert_never(kind)
