"""Reading Kinesis shards: iterators that expire, empty pages, throttling, positions that were trimmed."""

from __future__ import annotations

import threading
import time
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
EMPTY_PAGES = 50
"""Empty pages that one call passes over; at the pace below they take 10 s. The next call goes on where it ended."""
EMPTY_PAGE_SECONDS = 0.2
"""Between two of them: Kinesis gives five pages a second of a shard."""
_FOR_THE_CALLER = {"ExpiredIteratorException", "InvalidArgumentException", "ResourceInUseException"}


class HeadNotReached(LogUnavailable):
    """Kinesis gave empty pages without end, none of which was the head: whether records follow is not known."""


class DeadlinePassed(LogUnavailable):
    """The caller's time was over before Kinesis had answered."""


@dataclass(frozen=True)
class Backoff:
    """Bounded exponential backoff with full jitter. `sleep` takes seconds, `jitter` gives a number in [0, 1)."""

    sleep: Callable[[float], None]
    jitter: Callable[[], float]
    attempts: int = 8
    monotonic: Callable[[], float] = time.monotonic

    def tries(self, deadline: float | None = None) -> Iterator[int]:
        """The attempts, 0 first, with a pause before each but the first.

        Raises:
            DeadlinePassed: see `pause`.
        """
        for attempt in range(self.attempts):
            if attempt:
                self.pause(self.jitter() * min(_MOST_SECONDS, _FIRST_SECONDS * 2 ** (attempt - 1)), deadline)
            yield attempt

    def pause(self, seconds: float, deadline: float | None) -> None:
        """Sleep, and not past the deadline (of the monotonic clock).

        Raises:
            DeadlinePassed: it is reached.
        """
        if deadline is None:
            self.sleep(seconds)
            return
        remaining_seconds = deadline - self.monotonic()
        if remaining_seconds > 0:
            self.sleep(min(seconds, remaining_seconds))
        if remaining_seconds <= seconds:
            raise DeadlinePassed("the time for this call is over, and Kinesis has not answered it")


@dataclass(frozen=True, slots=True)
class Page:
    """Records of one shard. `ended`: the shard ends with them; `at_head`: nothing stood behind them when they were read."""

    records: list[RecordTypeDef]
    ended: bool
    at_head: bool


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

    def call(self, operation: Callable[..., Any], deadline: float | None = None, **arguments: Any) -> Any:
        """One request, repeated within bounds while Kinesis is throttling or away; none begins after the `deadline`.

        Raises:
            DeadlinePassed: the time is over.
            LogUnavailable: it stayed so, or the request was refused for a reason that is not known here.
            StreamNotFound: there is no such stream (or, for an iterator, no such shard).
            ClientError: one of `_FOR_THE_CALLER`.
        """
        code = "unknown"
        for _ in self._backoff.tries(deadline):
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

    def page(self, shard_id: str, after: str, limit: int, deadline: float | None = None) -> Page:
        """Up to `limit` records after a sequence number ('': from the oldest kept).

        No record means that the head was reached: the empty pages that Kinesis returns on the way are passed over, as many as
        `EMPTY_PAGES`, at a pace, and not past the `deadline` (of the monotonic clock).

        Raises:
            HeadNotReached | DeadlinePassed: the same call goes on where this one ended.
            PositionTrimmed | PositionUnknown | PartitionNotFound | LogUnavailable: see there.
        """
        key = (shard_id, after)
        iterator = self._take(key)
        for _ in self._backoff.tries(deadline):
            try:
                page, following = self._skip_empty(
                    key, iterator or self._open(shard_id, after, deadline), min(limit, PAGE_LIMIT), deadline
                )
            except ClientError as error:
                if error_code(error) != "ExpiredIteratorException":
                    raise LogUnavailable(f"Kinesis refused an iterator of {self._stream_name!r}") from error
                iterator = None
                continue
            if following is not None:
                self._keep((shard_id, page.records[-1]["SequenceNumber"] if page.records else after), following)
            return page
        raise LogUnavailable(f"the iterators of shard {shard_id!r} of {self._stream_name!r} keep expiring")

    def _take(self, key: tuple[str, str]) -> str | None:
        with self._lock:
            return self._iterators.pop(key, None)

    def _keep(self, key: tuple[str, str], iterator: str) -> None:
        with self._lock:
            self._iterators[key] = iterator
            if len(self._iterators) > _ITERATORS_KEPT:
                self._iterators.popitem(last=False)

    def _skip_empty(self, key: tuple[str, str], iterator: str, limit: int, deadline: float | None) -> tuple[Page, str | None]:
        """The first page that has records or is the head, and the iterator behind it. Given up, the way so far is kept."""
        try:
            for empty_count in range(EMPTY_PAGES):
                if empty_count:
                    self._backoff.pause(EMPTY_PAGE_SECONDS, deadline)
                response: GetRecordsOutputTypeDef = self.call(
                    self._client.get_records, deadline, ShardIterator=iterator, Limit=limit
                )
                following = response.get("NextShardIterator")
                at_head = following is None or response.get("MillisBehindLatest", 0) == 0
                if response["Records"] or at_head:
                    return Page(response["Records"], following is None, at_head), following
                iterator = following
        except LogUnavailable:
            self._keep(key, iterator)
            raise
        self._keep(key, iterator)
        raise HeadNotReached(
            f"shard {key[0]!r} of {self._stream_name!r} gave {EMPTY_PAGES} empty pages and did not reach its head: whether"
            " records follow is not known yet; the next call goes on from there"
        )

    def _open(self, shard_id: str, after: str, deadline: float | None) -> str:
        """An iterator after a sequence number whose record is still there.

        From a number that was trimmed Kinesis would silently go on at the oldest record that it kept. The record itself
        proves that nothing between was lost; without it nobody can tell, so that is refused.
        """
        if not after:
            return self._iterator(shard_id, deadline, ShardIteratorType="TRIM_HORIZON")
        here = {"StartingSequenceNumber": after}
        key = (shard_id, f"at {after}")
        at = self._take(key) or self._iterator(shard_id, deadline, ShardIteratorType="AT_SEQUENCE_NUMBER", **here)
        records = self._skip_empty(key, at, 1, deadline)[0].records
        if not records or records[0]["SequenceNumber"] != after:
            raise PositionTrimmed(
                f"shard {shard_id!r} of {self._stream_name!r} no longer holds record {after}: "
                "whether records behind it were trimmed unread cannot be told"
            )
        return self._iterator(shard_id, deadline, ShardIteratorType="AFTER_SEQUENCE_NUMBER", **here)

    def _iterator(self, shard_id: str, deadline: float | None, **arguments: str) -> str:
        shard_arguments = {"StreamName": self._stream_name, "ShardId": shard_id, **arguments}
        try:
            response = self.call(self._client.get_shard_iterator, deadline, **shard_arguments)
        except StreamNotFound as error:
            raise PartitionNotFound(f"there is no shard {shard_id!r} in a stream {self._stream_name!r}") from error
        except ClientError as error:
            raise PositionUnknown(
                f"shard {shard_id!r} of {self._stream_name!r} never gave out the sequence number of this basis"
            ) from error
        return str(response["ShardIterator"])
