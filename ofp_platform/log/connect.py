"""The log that a profile names, made when it is not there."""

from __future__ import annotations

from typing import Literal

from ofp_platform.log.port import EventLog, StreamNotFound
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.storage.postgres import Pool


def connect_log(
    pool: Pool,
    *,
    kind: Literal["postgres", "kinesis"],
    stream_name: str,
    partitions: int,
    partition_key: str,
    kinesis_endpoint_url: str | None,
) -> EventLog:
    """Open the stream, or create it with that many partitions. Close the log before the pool.

    Raises:
        LogUnavailable: the log does not answer.
    """
    if kind == "postgres":
        try:
            return PostgresLog.open(pool, stream_name)
        except StreamNotFound:
            return PostgresLog.create(pool, stream_name, partitions, partition_key)
    # a process whose log is no Kinesis starts without boto3, a fifth of a second
    from ofp_platform.log.kinesis import KinesisLog, kinesis_client

    client = kinesis_client(kinesis_endpoint_url)
    try:
        return KinesisLog.create(client, stream_name, partitions, partition_key)
    except BaseException:
        client.close()
        raise
