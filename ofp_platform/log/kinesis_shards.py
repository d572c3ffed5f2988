"""Reading Kinesis shards: iterators that expire, empty pages, throttling, positions that were trimmed."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EndpointConnectionError

from ofp_platform.log.port import LogUnavailable, PartitionNotFound, PositionTrimmed, PositionUnknown, StreamNotFound
from ofp_platform.log.shard_evidence import HeadSighting, ShardEvidence
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, to_micros

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_kinesis.literals import ShardFilterTypeType
    from mypy_boto3_kinesis.type_defs import GetRecordsOutputTypeDef, RecordTypeDef

logger = logging.getLogger(__name__)
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
_PROBE = "at "
_HOUR = 3600 * MICROS_PER_SECOND
_MARGIN = 10 * 60 * MICROS_PER_SECOND
"""A record that is kept by less than this may be trimmed while it is being read."""
_ADVICE = (
    "Where the archive has what came before, folds go on from there; else an operator who knows that nothing was lost says so:"
    " `ofp log accept {} --reason TEXT`"
)
_FOR_THE_CALLER = {"ExpiredIteratorException", "InvalidArgumentException", "ResourceInUseException"}


class HeadNotReached(LogUnavailable):
    """Kinesis gave empty pages without end, none of which was the head: whether records follow is not known."""


class DeadlinePassed(LogUnavailable):
    """The caller's time was over before Kinesis had answered."""


class Interrupted(LogUnavailable):
    """The process stops: a pause ended before its time."""


@dataclass(frozen=True)
class Backoff:
    """Bounded exponential backoff with full jitter. `sleep` takes seconds, `jitter` gives a number in [0, 1).

    `interrupted` tells, after a pause, that nothing is to be tried any more.
    """

    sleep: Callable[[float], None]
    jitter: Callable[[], float]
    attempts: int = 8
    monotonic: Callable[[], float] = time.monotonic
    interrupted: Callable[[], bool] = lambda: False

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
            DeadlinePassed: it is reached. Interrupted: see there.
        """
        remaining_seconds = seconds if deadline is None else deadline - self.monotonic()
        if remaining_seconds > 0:
            self.sleep(min(seconds, remaining_seconds))
        if self.interrupted():
            raise Interrupted("this process stops: nothing is asked of Kinesis any more")
        if deadline is not None and remaining_seconds <= seconds:
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


def is_refusal(error: ClientError | BotoCoreError) -> bool:
    """Whether the request has for certain changed nothing: it was refused as a whole, or never reached the service."""
    if isinstance(error, ClientError):
        return 400 <= error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) < 500
    return isinstance(error, ConnectTimeoutError | EndpointConnectionError)


def _broker_time(response: Mapping[str, Any]) -> int | None:
    """When the broker answered, by its own clock, microseconds; None where it does not say."""
    date = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return None if date is None else to_micros(parsedate_to_datetime(date))


class ShardReader:
    """Pages of the shards of one stream, each from after a sequence number. Safe to share between threads."""

    def __init__(self, client: KinesisClient, stream_name: str, backoff: Backoff, evidence: ShardEvidence) -> None:
        self._evidence = evidence
        self._arrivals: dict[str, tuple[str, int]] = {}  # of the last record that was read of a shard
        self._client = client
        self._stream_name = stream_name
        self._backoff = backoff
        self._lock = threading.Lock()
        self._iterators: OrderedDict[tuple[str, str | None], str] = OrderedDict()

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
                    self._forget_iterators()
                    raise StreamNotFound(
                        f"there is no stream {self._stream_name!r} on this Kinesis: `ofp projector run` creates it"
                    ) from error
                if code in _FOR_THE_CALLER:
                    raise
                if not is_transient(error):
                    raise LogUnavailable(f"Kinesis refused a request about {self._stream_name!r}: {code}") from error
        self._forget_iterators()
        raise LogUnavailable(f"Kinesis does not answer for {self._stream_name!r}: {code}, {self._backoff.attempts} times")

    def page(
        self, shard_id: str, after: str | None, limit: int, deadline: float | None = None, *, empty_pages: int = EMPTY_PAGES
    ) -> Page:
        """Up to `limit` records after a sequence number ('': from the first that ever was; None: from the oldest kept).

        No record means that the head was reached: the empty pages that Kinesis returns on the way are passed over, as many as
        `empty_pages`, at a pace, and not past the `deadline` (of the monotonic clock). With one it is a single request, and
        the page may be empty without being the head.

        Raises:
            HeadNotReached | DeadlinePassed: the same call goes on where this one ended.
            PositionTrimmed | PositionUnknown | PartitionNotFound | LogUnavailable: see there.
        """
        key = (shard_id, after)
        iterator = self._take(key)
        for _ in self._backoff.tries(deadline):
            try:
                page, following = self._skip_empty(
                    key, iterator or self._open(shard_id, after, deadline), min(limit, PAGE_LIMIT), deadline, empty_pages
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

    def _take(self, key: tuple[str, str | None]) -> str | None:
        with self._lock:
            return self._iterators.pop(key, None)

    def _forget_iterators(self) -> None:
        """Drop all: after an outage another stream may have the name, and a position is looked for again there."""
        with self._lock:
            self._iterators.clear()

    def _keep(self, key: tuple[str, str | None], iterator: str) -> None:
        with self._lock:
            self._iterators[key] = iterator
            if len(self._iterators) > _ITERATORS_KEPT:
                self._iterators.popitem(last=False)

    def _skip_empty(
        self, key: tuple[str, str | None], iterator: str, limit: int, deadline: float | None, empty_pages: int = EMPTY_PAGES
    ) -> tuple[Page, str | None]:
        """The first page that has records or is the head, and the iterator behind it. Given up, the way so far is kept."""
        try:
            for empty_count in range(empty_pages):
                if empty_count:
                    self._backoff.pause(EMPTY_PAGE_SECONDS, deadline)
                response: GetRecordsOutputTypeDef = self.call(
                    self._client.get_records, deadline, ShardIterator=iterator, Limit=limit
                )
                following = response.get("NextShardIterator")
                at_head = following is None or response.get("MillisBehindLatest", 0) == 0
                if response["Records"] or at_head:
                    self._note(key, response)
                    return Page(response["Records"], following is None, at_head), following
                iterator = following
        except (DeadlinePassed, Interrupted):
            self._keep(key, iterator)
            raise
        if empty_pages == 1:
            return Page([], ended=False, at_head=False), iterator
        self._keep(key, iterator)
        raise HeadNotReached(
            f"shard {key[0]!r} of {self._stream_name!r} gave {empty_pages} empty pages and did not reach its head: whether"
            " records follow is not known yet; the next call goes on from there"
        )

    def demand(self, shard_id: str, after: str) -> None:
        """Refuse a number that reading does not go on from without a gap, or may not; see `page`."""
        key = (shard_id, after)
        for _ in self._backoff.tries():
            try:
                self._keep(key, self._take(key) or self._open(shard_id, after, None))
                return
            except ClientError as error:  # an iterator of the way to the oldest record that expired: it is taken no more
                logger.debug("shard %s of %s: %s", shard_id, self._stream_name, error_code(error))
        raise LogUnavailable(f"the iterators of shard {shard_id!r} of {self._stream_name!r} keep expiring")

    def retention(self) -> tuple[int, int | None]:
        """How many hours the stream keeps a record, and the broker's time, microseconds."""
        response = self.call(self._client.describe_stream_summary, StreamName=self._stream_name)
        return int(response["StreamDescriptionSummary"]["RetentionPeriodHours"]), _broker_time(response)

    def retention_used(self, shard_id: str, after: str, hours: int, now: int | None) -> float:
        """The age of the oldest record after a number as a part of the retention; 0: there is none, 1: it may be gone."""
        try:
            page = self.page(shard_id, after, 1)
        except PositionTrimmed:
            return 1.0
        if not page.records or now is None:
            return 0.0
        age = now - to_micros(page.records[0]["ApproximateArrivalTimestamp"])
        return float(max(age, 0) / (hours * _HOUR))

    def _note(self, key: tuple[str, str | None], response: GetRecordsOutputTypeDef) -> None:
        """Keep what a page tells about its shard."""
        shard_id, after = key
        if after is not None and after.startswith(_PROBE):
            return
        if response["Records"]:
            first, last = response["Records"][0], response["Records"][-1]
            number, arrived_at = self._arrivals.get(shard_id, ("", None))
            is_late = (
                number == after
                and arrived_at is not None
                and to_micros(first["ApproximateArrivalTimestamp"]) - arrived_at > _HOUR
            )
            if after == "" or (after is not None and is_late):
                self._evidence.note_following(shard_id, after, first["SequenceNumber"])
            self._arrivals[shard_id] = last["SequenceNumber"], to_micros(last["ApproximateArrivalTimestamp"])
            return
        now = _broker_time(response)
        if after is None or now is None:
            return
        number, arrived_at = self._arrivals.get(shard_id, ("", None))
        self._evidence.note_sighting(shard_id, HeadSighting(after, arrived_at if number == after else None, now))

    def _open(self, shard_id: str, after: str | None, deadline: float | None) -> str:
        """An iterator after a sequence number, behind which nothing was trimmed.

        From a number that was trimmed Kinesis would silently go on at the oldest record that it kept. The record itself
        proves that nothing between was lost. Without it: that it left with its age, and that the shard was seen at its head
        behind it, or an operator decided so, since what is kept now was appended.
        """
        if after is None:
            return self._iterator(shard_id, deadline, ShardIteratorType="TRIM_HORIZON")
        if not after:
            return self._open_start(shard_id, deadline)
        here = {"StartingSequenceNumber": after}
        records = self._probe(shard_id, after, deadline, ShardIteratorType="AT_SEQUENCE_NUMBER", **here)
        if records and records[0]["SequenceNumber"] == after:
            arrived_at = to_micros(records[0]["ApproximateArrivalTimestamp"])
            self._demand_seen(shard_id, after, arrived_at)
            self._arrivals[shard_id] = after, arrived_at
            return self._iterator(shard_id, deadline, ShardIteratorType="AFTER_SEQUENCE_NUMBER", **here)
        following = self._evidence.following(shard_id, after)
        if following is not None and following == self._oldest(shard_id, deadline):
            return self._iterator(shard_id, deadline, ShardIteratorType="TRIM_HORIZON")
        kept_from, _ = self._kept_from(deadline)
        if self._is_accepted(shard_id, after, kept_from):
            self._arrivals[shard_id] = after, kept_from  # that it left with its age is part of the decision
            return self._iterator(shard_id, deadline, ShardIteratorType="TRIM_HORIZON")
        sighting = self._evidence.sighting(shard_id)
        if sighting is None or sighting.position != after or sighting.seen_at <= kept_from:
            raise PositionTrimmed(
                f"shard {shard_id!r} of {self._stream_name!r} no longer holds record {after}: "
                f"whether records behind it were trimmed unread cannot be told. {_ADVICE.format(shard_id)}"
            )
        if sighting.arrived_at is None or sighting.arrived_at > kept_from:
            raise PositionTrimmed(
                f"shard {shard_id!r} of {self._stream_name!r} no longer holds record {after}, which is younger than its"
                f" retention: records are lost that should be there. {_ADVICE.format(shard_id)}"
            )
        self._arrivals[shard_id] = after, sighting.arrived_at
        return self._iterator(shard_id, deadline, ShardIteratorType="TRIM_HORIZON")

    def _demand_seen(self, shard_id: str, number: str, arrived_at: int) -> None:
        """Refuse a record that has the number of one that was seen, and arrived at another time (microseconds).

        Kinesis gives a number once. A stand-in of it that was started anew counts from the beginning.
        """
        sighting = self._evidence.sighting(shard_id)
        if sighting is None or sighting.position != number or sighting.arrived_at in (None, arrived_at):
            return
        raise PositionUnknown(
            f"shard {shard_id!r} of {self._stream_name!r} has another record at {number} than was read there: it is another"
            " stream of that name"
        )

    def _open_start(self, shard_id: str, deadline: float | None) -> str:
        """An iterator before the first record that the shard ever had."""
        oldest = self._oldest(shard_id, deadline)
        first = self._evidence.following(shard_id, "")
        if first is None or first != oldest:
            kept_from, created_at = self._kept_from(deadline)
            if not self._is_accepted(shard_id, "", kept_from):
                if first is not None:
                    raise PositionTrimmed(
                        f"shard {shard_id!r} of {self._stream_name!r} began with record {first} and no longer holds it. "
                        f"{_ADVICE.format(shard_id)}"
                    )
                sighting = self._evidence.sighting(shard_id)
                seen_empty = sighting is not None and not sighting.position and sighting.seen_at > kept_from
                if not (seen_empty or created_at > kept_from or self._was_opened_since(shard_id, kept_from, deadline)):
                    raise PositionTrimmed(
                        f"shard {shard_id!r} of {self._stream_name!r} is older than its retention: whether the oldest record"
                        f" that it holds is its first cannot be told. {_ADVICE.format(shard_id)}"
                    )
            if first is None and oldest is not None:
                self._evidence.note_following(shard_id, "", oldest)
        return self._iterator(shard_id, deadline, ShardIteratorType="TRIM_HORIZON")

    def _oldest(self, shard_id: str, deadline: float | None) -> str | None:
        """The number of the oldest record that is kept."""
        records = self._probe(shard_id, "start", deadline, ShardIteratorType="TRIM_HORIZON")
        return records[0]["SequenceNumber"] if records else None

    def _probe(self, shard_id: str, name: str, deadline: float | None, **arguments: str) -> list[RecordTypeDef]:
        """The first record at an iterator, if there is one."""
        key = (shard_id, f"{_PROBE}{name}")
        at = self._take(key) or self._iterator(shard_id, deadline, **arguments)
        return self._skip_empty(key, at, 1, deadline)[0].records

    def _kept_from(self, deadline: float | None) -> tuple[int, int]:
        """Since when the stream has kept every record, and when it was made, microseconds.

        The former is a moment later than it is, so that it stays so while somebody reads.

        Raises:
            LogUnavailable: the answer does not tell the time.
        """
        response = self.call(self._client.describe_stream_summary, deadline, StreamName=self._stream_name)
        now = _broker_time(response)
        if now is None:
            raise LogUnavailable(f"Kinesis does not tell the time for {self._stream_name!r}")
        summary = response["StreamDescriptionSummary"]
        kept_from = now - summary["RetentionPeriodHours"] * _HOUR + _MARGIN
        return kept_from, to_micros(summary["StreamCreationTimestamp"])

    def _is_accepted(self, shard_id: str, after: str, kept_from: int) -> bool:
        decision = shard_id, after
        return any(
            (gap.partition_id, gap.position) == decision and gap.decided_at > kept_from for gap in self._evidence.decisions()
        )

    def _was_opened_since(self, shard_id: str, kept_from: int, deadline: float | None) -> bool:
        """Whether the shard came out of a split or merge since then."""
        then = datetime.fromtimestamp(kept_from / MICROS_PER_SECOND, UTC)
        return shard_id in self._open_at("FROM_TIMESTAMP", then, deadline) - self._open_at("AT_TIMESTAMP", then, deadline)

    def _open_at(self, kind: ShardFilterTypeType, moment: datetime, deadline: float | None) -> set[str]:
        response = self.call(
            self._client.list_shards, deadline, StreamName=self._stream_name, ShardFilter={"Type": kind, "Timestamp": moment}
        )
        names = {shard["ShardId"] for shard in response["Shards"]}
        while token := response.get("NextToken"):
            response = self.call(self._client.list_shards, deadline, NextToken=token)
            names.update(shard["ShardId"] for shard in response["Shards"])
        return names

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
