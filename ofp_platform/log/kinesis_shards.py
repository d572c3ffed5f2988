"""Reading Kinesis shards: iterators that expire, empty pages, throttling, positions that were trimmed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from ofp_platform.log.port import LogUnavailable, PartitionNotFound, PositionTrimmed, PositionUnknown, StreamNotFound

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_kinesis.type_defs import GetRecordsOutputTypeDef, RecordTypeDef

PAGE_LIMIT = 10_000  # what one GetRecords may return
_ITERATORS_KEPT = 1024
_TRANSIENT = {
    "InternalFailure",
    "KMSThrottlingException",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestTimeout",
    "ServiceUnavailable",
    "ThrottlingException",
}
_FIRST_SECONDS = 0.05
_MOST_SECONDS = 2.0
_FOR_THE_CALLER = {"ExpiredIteratorException", "InvalidArgumentException", "ResourceInUseException"}


@dataclass(frozen=True)
class Backoff:
    """Bounded exponential backoff with full jitter. `sleep` takes seconds, `jitter` gives a number in [0, 1)."""

    sleep: Callable[[float], None]
    jitter: Callable[[], float]
    attempts: int = 8

    def tries(self) -> Iterator[int]:
        """The attempts, 0 first, with a pause before each but the first."""
        for attempt in range(self.attempts):
            if attempt:
                self.sleep(self.jitter() * min(_MOST_SECONDS, _FIRST_SECONDS * 2 ** (attempt - 1)))
            yield attempt


def error_code(error: ClientError | BotoCoreError) -> str:
    """The error's short name, without anything that the request held."""
    if isinstance(error, ClientError):
        return error.response.get("Error", {}).get("Code", "unknown")
    return type(error).__name__


def is_transient(error: ClientError | BotoCoreError) -> bool:
    """Whether the same request may succeed later: throttled, a fault of the service, or it was not reached."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return error_code(error) in _TRANSIENT or status >= 500
    return True


class ShardReader:
    """Pages of the shards of one stream, each from after a sequence number. Safe to share between threads."""

    def __init__(self, client: KinesisClient, stream_name: str, backoff: Backoff) -> None:
        self._client = client
        self._stream_name = stream_name
        self._backoff = backoff
        self._lock = threading.Lock()
        self._iterators: OrderedDict[tuple[str, str], str] = OrderedDict()

    def call(self, operation: Callable[..., Any], **arguments: Any) -> Any:
        """One request, repeated within bounds while Kinesis is throttling or away.

        Raises:
            LogUnavailable: it stayed so, or the request was refused for a reason that is not known here.
            StreamNotFound: there is no such stream (or, for an iterator, no such shard).
            ClientError: one of `_FOR_THE_CALLER`.
        """
        code = "unknown"
        for _ in self._backoff.tries():
            try:
                return operation(**arguments)
            except (ClientError, BotoCoreError) as error:
                code = error_code(error)
                if code == "ResourceNotFoundException":
                    raise StreamNotFound(f"there is no stream {self._stream_name!r} on this Kinesis") from error
                if code in _FOR_THE_CALLER:
                    raise
                if not is_transient(error):
                    raise LogUnavailable(f"Kinesis refused a request about {self._stream_name!r}: {code}") from error
        raise LogUnavailable(f"Kinesis does not answer for {self._stream_name!r}: {code}, {self._backoff.attempts} times")

    def page(self, shard_id: str, after: str, limit: int) -> tuple[list[RecordTypeDef], bool]:
        """Up to `limit` records after a sequence number ('': from the oldest kept), and whether the shard ends with them.

        No record means that the head was reached: the empty pages that Kinesis returns on the way are passed over.

        Raises:
            PositionTrimmed | PositionUnknown | PartitionNotFound | LogUnavailable: see there.
        """
        with self._lock:
            iterator = self._iterators.pop((shard_id, after), None)
        records, following = self._first_page(shard_id, after, iterator, min(limit, PAGE_LIMIT))
        if following is not None:
            with self._lock:
                self._iterators[shard_id, records[-1]["SequenceNumber"] if records else after] = following
                if len(self._iterators) > _ITERATORS_KEPT:
                    self._iterators.popitem(last=False)
        return records, following is None

    def _first_page(self, shard_id: str, after: str, iterator: str | None, limit: int) -> tuple[list[RecordTypeDef], str | None]:
        for _ in self._backoff.tries():
            try:
                return self._skip_empty(iterator or self._open(shard_id, after), limit)
            except ClientError as error:
                if error_code(error) != "ExpiredIteratorException":
                    raise LogUnavailable(f"Kinesis refused an iterator of {self._stream_name!r}") from error
                iterator = None
        raise LogUnavailable(f"the iterators of shard {shard_id!r} of {self._stream_name!r} keep expiring")

    def _skip_empty(self, iterator: str, limit: int) -> tuple[list[RecordTypeDef], str | None]:
        while True:
            response: GetRecordsOutputTypeDef = self.call(self._client.get_records, ShardIterator=iterator, Limit=limit)
            following = response.get("NextShardIterator")
            if response["Records"] or following is None or response.get("MillisBehindLatest", 0) == 0:
                return response["Records"], following
            iterator = following

    def _open(self, shard_id: str, after: str) -> str:
        """An iterator after a sequence number whose record is still there.

        From a number that was trimmed Kinesis would silently go on at the oldest record that it kept. The record itself
        proves that nothing between was lost; without it nobody can tell, so that is refused.
        """
        if not after:
            return self._iterator(shard_id, ShardIteratorType="TRIM_HORIZON")
        here = {"StartingSequenceNumber": after}
        records, _ = self._skip_empty(self._iterator(shard_id, ShardIteratorType="AT_SEQUENCE_NUMBER", **here), 1)
        if not records or records[0]["SequenceNumber"] != after:
            raise PositionTrimmed(
                f"shard {shard_id!r} of {self._stream_name!r} no longer holds record {after}: "
                "whether records behind it were trimmed unread cannot be told"
            )
        return self._iterator(shard_id, ShardIteratorType="AFTER_SEQUENCE_NUMBER", **here)

    def _iterator(self, shard_id: str, **arguments: str) -> str:
        try:
            response = self.call(self._client.get_shard_iterator, StreamName=self._stream_name, ShardId=shard_id, **arguments)
        except StreamNotFound as error:
            raise PartitionNotFound(f"there is no shard {shard_id!r} in a stream {self._stream_name!r}") from error
        except ClientError as error:
            raise PositionUnknown(
                f"shard {shard_id!r} of {self._stream_name!r} never gave out the sequence number of this basis"
            ) from error
        return str(response["ShardIterator"])
