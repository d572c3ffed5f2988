"""The log on Amazon Kinesis.

A position is a sequence number: a string of digits, sparse, meaningful in its shard only. The next position after `n` is
"after n"; nothing here ever computes `n + 1`. The token '' stands before the first record that Kinesis still keeps.

A record's data is the canonical JSON of `{"admitted_at_utc", "envelope"}`; an append without a clock leaves the time out,
and the broker's arrival time is the admission time. Delivery is at least once, and a record that had to be sent again
stands behind those that were taken at once.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import boto3
import orjson
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError

from ofp_platform.log.admission import Admission
from ofp_platform.log.admitted import AdmittedBatch, AdmittedColumns
from ofp_platform.log.column_admission import admit_columns
from ofp_platform.log.incarnations import ONE_HISTORY
from ofp_platform.log.kinesis_look import Look
from ofp_platform.log.kinesis_shards import (
    PAGE_LIMIT,
    Backoff,
    DeadlinePassed,
    Interrupted,
    Page,
    ShardReader,
    error_code,
    is_refusal,
    is_transient,
)
from ofp_platform.log.port import (
    AdmissionClock,
    AppendReceipt,
    Candidate,
    LogRefused,
    LogUnavailable,
    PartitionInfo,
    PartitionVanished,
    RecordBatch,
    RecordRefusal,
    RefusalReason,
    checked_start,
    empty_batch,
    readable_partitions,
)
from ofp_platform.log.publishing import NotTaken, PublishFate, PublishReceipt
from ofp_platform.log.shard_evidence import ProcessEvidence, ShardEvidence
from ofp_platform.log.wire_records import WirePage, batch_of, wire_records
from ofp_platform.vocabulary.columns import EventColumns, Int64
from ofp_platform.vocabulary.position import SEQUENCE_TOKENS, Basis, PartitionBasis, make_basis
from ofp_platform.vocabulary.times import to_micros

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_kinesis.type_defs import PutRecordsResultEntryTypeDef, RecordTypeDef, ShardTypeDef

PUT_RECORDS = 500  # what one PutRecords may take
PUT_BYTES = 4_500_000
ANSWER_SECONDS = 10.0
"""How long one request may take; boto would wait a minute for the answer of a peer that is gone."""
_CONNECT_SECONDS = 5.0
_LISTED_SECONDS = 5.0
"""How old the list of shards may be that `wait` looks at."""
_SIDE_BY_SIDE = 8
_SHARD_PAGES = 100  # of a thousand shards each: no stream has as many
_THROTTLED = "ProvisionedThroughputExceededException"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One record to send; `index` is its place in the batch of the caller."""

    index: int
    key: str
    data: bytes


def kinesis_client(endpoint_url: str | None) -> KinesisClient:
    """A client for a `KinesisLog`: each request ends in time, and is repeated by the log alone, not by boto below it.

    An answer that was cut short is an error of the connection. Boto takes what ends within its head for an empty success.
    """
    config = Config(
        connect_timeout=min(_CONNECT_SECONDS, ANSWER_SECONDS),
        read_timeout=ANSWER_SECONDS,
        retries={"total_max_attempts": 1},
        tcp_keepalive=True,
    )
    client = boto3.client("kinesis", endpoint_url=endpoint_url, config=config)
    client.meta.events.register("before-parse.kinesis", _refuse_what_was_cut)
    return client


def _refuse_what_was_cut(operation_model: Any, response_dict: dict[str, Any], **_: Any) -> None:
    if response_dict["status_code"] == 200 and operation_model.output_shape is not None:
        try:
            orjson.loads(response_dict["body"])
        except orjson.JSONDecodeError:
            raise ConnectionClosedError(endpoint_url=operation_model.name) from None


class KinesisLog:
    """One stream. Safe to share between threads. `close` closes the client: do not call it where others use that client."""

    position_kind = SEQUENCE_TOKENS
    history = ONE_HISTORY  # a sequence number is given once
    kept_seconds = 86_400.0  # the least that a stream can be set to
    late_seconds = 900.0
    """A request is valid for five minutes around the time that it is signed with, by clocks that differ by as much (0092)."""

    def __init__(
        self,
        client: KinesisClient,
        stream_name: str,
        partition_key: str,
        *,
        attempts: int = 8,
        poll_seconds: float = 0.5,
        sleep: Callable[[float], None] | None = None,
        jitter: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
        evidence: ShardEvidence | None = None,
    ) -> None:
        """An existing stream. `attempts` bounds each request; the callables are the only clock and chance in here.
        Without a `sleep`, pauses end when the log is closed or the process stops (`pauses_end_with`).

        `evidence` about its shards is kept there; None: it ends with this object.
        """
        self.stream_name = stream_name
        self.partition_key = partition_key
        self._client = client
        self._admission = Admission(partition_key)
        self._closing = self._stop = threading.Event()
        self._backoff = Backoff(sleep or self._pause, jitter, attempts, monotonic, lambda: self._stop.is_set())
        self.poll_seconds = poll_seconds
        self._monotonic = monotonic
        self._evidence = evidence = ProcessEvidence() if evidence is None else evidence
        self._reader = ShardReader(client, stream_name, self._backoff, evidence)
        self._scout = ShardReader(
            client, stream_name, self._backoff, evidence
        )  # looks ahead without taking the reader's iterators
        self._lock = threading.Lock()
        self._heads: dict[str, PartitionBasis] = {}
        self._look = Look()

    @staticmethod
    def first_partition_ids(count: int) -> list[str]:
        """The ids that Kinesis gives the shards of a new stream; those of a split come after them."""
        return [f"shardId-{number:012d}" for number in range(count)]

    @classmethod
    def create(cls, client: KinesisClient, stream_name: str, shards: int, partition_key: str, **options: Any) -> KinesisLog:
        """The stream, made if it does not exist and ready for use; one that exists keeps its shards.

        `options` are those of the constructor.

        Raises:
            LogUnavailable: Kinesis does not answer, or the stream does not become active in time.
            ValueError: the name or the number of shards is not valid.
        """
        log = cls(client, stream_name, partition_key, **options)
        try:
            log._reader.call(client.create_stream, StreamName=stream_name, ShardCount=shards)
        except ClientError as error:
            if error_code(error) != "ResourceInUseException":
                raise ValueError(f"Kinesis cannot make stream {stream_name!r} with {shards} shards") from error
        for _ in replace(log._backoff, jitter=lambda: 1.0, attempts=60).tries():
            summary = log._reader.call(client.describe_stream_summary, StreamName=stream_name)
            if summary["StreamDescriptionSummary"]["StreamStatus"] in ("ACTIVE", "UPDATING"):
                return log
        raise LogUnavailable(f"stream {stream_name!r} was created but does not become active")

    def demand_settled(self) -> None:
        """See `EventLog.demand_settled`: what Kinesis acknowledged it keeps."""

    def partitions(self) -> list[PartitionInfo]:
        """The shards that Kinesis still lists; right after a `wait` that saw something, those that it saw."""
        with self._lock:
            shards = self._look.take_shards()
        return self._partitions(None) if shards is None else shards

    def _partitions(self, deadline: float | None) -> list[PartitionInfo]:
        arguments: dict[str, str] = {"StreamName": self.stream_name}
        shards: list[Any] = []
        for _ in range(_SHARD_PAGES):
            response = self._reader.call(self._client.list_shards, deadline, **arguments)
            shards += response["Shards"]
            token = response.get("NextToken")
            if not token:
                break
            arguments = {"NextToken": token}
        else:
            raise LogUnavailable(f"Kinesis lists the shards of {self.stream_name!r} without end: {_SHARD_PAGES} pages, and more")
        names = {shard["ShardId"] for shard in shards}
        return sorted((_partition_info(shard, names) for shard in shards), key=lambda info: info.partition_id)

    def append(self, envelopes: Sequence[Candidate], clock: AdmissionClock | None = None) -> AppendReceipt:
        """See `EventLog.append`. It does not raise when Kinesis is away: what was not taken is refused as LOG_UNAVAILABLE."""
        return self._append(self._admission.admit_batch(envelopes, clock))

    def append_columns(self, columns: EventColumns, admitted_at: Int64) -> AppendReceipt:
        """See `EventLog.append_columns`. As with `append`, what Kinesis does not take is refused as LOG_UNAVAILABLE."""
        return self._append(admit_columns(self._admission, columns, admitted_at))

    def _append(self, batch: AdmittedBatch) -> AppendReceipt:
        with self._lock:
            self._look.forget_heads()  # whoever appends and reads finds it
        rows = zip(batch.records.places, batch.records.keys, wire_records(batch), strict=True)
        entries = [_Entry(place, key, data) for place, key, data in rows]
        places: dict[int, tuple[str, int | str] | RecordRefusal] = {}
        for chunk in _chunks(entries):
            self._put(chunk, places)
        return batch.receipt(self.stream_name, [places[place] for place in batch.records.places])

    def _put(self, entries: list[_Entry], placed: dict[int, tuple[str, int | str] | RecordRefusal]) -> None:
        """Send the records until each is taken or the attempts are used up; those that were taken are not sent again."""
        code = "unknown"
        for _ in self._backoff.tries():
            try:
                results = self._put_records(entries)
            except (ClientError, BotoCoreError) as error:
                code = error_code(error)
                if is_transient(error):
                    continue
                break
            left = []
            for entry, result in zip(entries, results, strict=True):
                if "ErrorCode" in result:
                    code = result["ErrorCode"]
                    left.append(entry)
                else:
                    placed[entry.index] = (result["ShardId"], result["SequenceNumber"])
            entries = left
            if not entries:
                return
        for entry in entries:
            text = f"Kinesis did not take the record: {code}"
            placed[entry.index] = RecordRefusal(entry.index, RefusalReason.LOG_UNAVAILABLE, text)

    def _put_records(self, entries: Sequence[_Entry]) -> Sequence[PutRecordsResultEntryTypeDef]:
        response = self._client.put_records(
            StreamName=self.stream_name, Records=[{"Data": entry.data, "PartitionKey": entry.key} for entry in entries]
        )
        return response["Records"]

    def publish(self, records: AdmittedColumns, admitted_at: Sequence[int] | None) -> PublishReceipt:
        """See `Publisher.publish`."""
        with self._lock:
            self._look.forget_heads()
        times = None if admitted_at is None else list(admitted_at)
        data = wire_records(AdmittedBatch(len(records), records, [], times))
        entries = [_Entry(index, key, text) for index, (key, text) in enumerate(zip(records.keys, data, strict=True))]
        fates: list[PublishFate] = [NotTaken("was not sent, as the records before it were not taken")] * len(entries)
        for chunk in _chunks(entries):
            if not self._put_once(chunk, fates):
                break
        return PublishReceipt(fates)

    def _put_once(self, entries: list[_Entry], fates: list[PublishFate]) -> bool:
        """Send each record until Kinesis does not refuse it, a few times; whether all were taken."""
        all_known = True
        with suppress(Interrupted):  # what was refused until then stays refused
            for _ in self._backoff.tries():
                try:
                    results = self._put_records(entries)
                except (ClientError, BotoCoreError) as error:
                    refused = NotTaken(f"Kinesis did not take it: {error_code(error)}") if is_refusal(error) else None
                    for entry in entries:
                        fates[entry.index] = refused
                    if refused is not None and is_transient(error):
                        continue
                    return False
                left = []
                for entry, result in zip(entries, results, strict=True):
                    code = result.get("ErrorCode")
                    if code is None:
                        fates[entry.index] = result["ShardId"], result["SequenceNumber"]
                    elif code == _THROTTLED:
                        fates[entry.index] = NotTaken(f"Kinesis did not take it: {code}")
                        left.append(entry)
                    else:  # a fault of the service: it does not say how far it came
                        fates[entry.index], all_known = None, False
                entries = left
                if not entries:
                    return all_known
        return False

    def read(self, partition_id: str, basis: PartitionBasis | None, max_records: int) -> RecordBatch:
        """See `EventLog.read`. The batch that reaches the end of a closed shard has `next.closed`."""
        checked_start(partition_id, basis, self.position_kind.offset_kind, max_records)
        if basis is not None and basis.closed:
            return empty_batch(basis)
        after = None if basis is None else str(basis.offset)
        page = self._seen_page(partition_id, after, max_records) or self._asked_page(partition_id, after, max_records)
        return batch_of(wire_page(page.records), self._admission, self._behind_page(partition_id, after or "", page))

    def _seen_page(self, shard_id: str, after: str | None, limit: int) -> Page | None:
        with self._lock:
            return None if after is None else self._look.take_page(shard_id, after, limit, self._monotonic())

    def _asked_page(self, shard_id: str, after: str | None, limit: int, **arguments: Any) -> Page:
        page = self._reader.page(shard_id, after, limit, **arguments)
        pause = self.poll_seconds if page.at_head else self.poll_seconds / 2
        with self._lock:
            self._look.note(shard_id, page, self._monotonic() + pause)
        return page

    def ends(self) -> Basis:
        """See `EventLog.ends`. Kinesis does not tell its last number: the first call of a process reads up to it."""
        return make_basis(self.stream_name, {info.partition_id: self._head(info.partition_id) for info in self.partitions()})

    def _head(self, shard_id: str) -> PartitionBasis:
        with self._lock:
            head = self._heads.get(shard_id, self._part(shard_id, ""))
        while not head.closed:
            page = self._scout.page(shard_id, str(head.offset) or None, PAGE_LIMIT)
            head = self._behind_page(shard_id, str(head.offset), page)
            if page.at_head:
                break  # what is appended meanwhile is behind this moment
        with self._lock:
            self._heads[shard_id] = head
        return head

    def retention_floor(self) -> Basis:
        """'' for each shard: Kinesis keeps its floor to itself; reading from behind it raises `PositionTrimmed`."""
        parts = {info.partition_id: self._part(info.partition_id, "") for info in self.partitions()}
        return make_basis(self.stream_name, parts)

    def ordinal_lag(self, basis: Basis) -> dict[str, int]:
        """See `EventLog.ordinal_lag`: counted in one page, so at least this many (at most 10,000 are seen)."""
        return {name: len(page.records) for name, page in self._behind(basis, PAGE_LIMIT)}

    def demand(self, basis: Basis) -> None:
        """See `EventLog.demand`; one request a shard where it was not asked before."""
        known_parts = basis.by_partition()
        infos = self.partitions()
        for name in readable_partitions(infos, basis):
            self._scout.demand(name, str(known_parts[name].offset) if name in known_parts else "")

    def accepted_ends(self) -> dict[str, PartitionBasis]:
        """See `EventLog.accepted_ends`."""
        names = {info.partition_id for info in self.partitions()}
        return {
            gap.partition_id: self._part(gap.partition_id, gap.position, closed=True)
            for gap in self._evidence.decisions()
            if gap.partition_id not in names
        }

    def retention_used(self, basis: Basis) -> dict[str, float]:
        """See `EventLog.retention_used`; one request a shard, and one for the stream."""
        known_parts = basis.by_partition()
        hours, now = self._scout.retention()
        shares = {}
        for info in self.partitions():
            part = known_parts.get(info.partition_id)
            shares[info.partition_id] = (
                0.0
                if part is not None and part.closed
                else self._scout.retention_used(info.partition_id, "" if part is None else str(part.offset), hours, now)
            )
        return shares

    def retention_hours(self) -> int:
        """How long the stream keeps a record."""
        return self._scout.retention()[0]

    def keep_for(self, hours: int) -> None:
        """Raise the retention of the stream; it is never lowered here: that loses records.

        Raises:
            LogUnavailable: Kinesis does not answer, or does not allow it.
        """
        if hours > self.retention_hours():
            try:
                self._reader.call(
                    self._client.increase_stream_retention_period, StreamName=self.stream_name, RetentionPeriodHours=hours
                )
            except ClientError as error:
                raise LogUnavailable(
                    f"Kinesis does not keep records of {self.stream_name!r} for {hours} hours: {error_code(error)}"
                ) from error

    def wait(self, basis: Basis, timeout_seconds: float) -> bool:
        """See `EventLog.wait`; asks every `poll_seconds`. A shard that ended with the basis counts too: reading shows it.

        Shards are asked side by side, each not before `poll_seconds` have passed since it was read to its head, and what they
        answer is what the next reads return: a record is asked for once. The time-out bounds all of it, after one look at
        least; a request that is under way then is waited for.
        """
        deadline = self._monotonic() + timeout_seconds
        while True:
            try:
                if self._sees_more(basis, deadline):
                    return True
                self._backoff.pause(self.poll_seconds, deadline)
            except DeadlinePassed:
                return False

    def seen_lag(self) -> dict[str, int] | None:
        """See `EventLog.seen_lag`."""
        with self._lock:
            return self._look.lag

    @contextmanager
    def pauses_end_with(self, stop: threading.Event) -> Iterator[None]:
        """See `EventLog.pauses_end_with`; a request that is under way is waited for (`ANSWER_SECONDS`)."""
        self._stop = stop
        try:
            yield
        finally:
            self._stop = self._closing

    def close(self) -> None:
        """Close the client, and with it its connections."""
        self._closing.set()
        self._client.close()

    def _pause(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _sees_more(self, basis: Basis, deadline: float) -> bool:
        """Look at all readable shards once; whether a read has something to tell."""
        known_parts = basis.by_partition()
        infos = self._listed(deadline)
        try:
            names = readable_partitions(infos, basis)
        except PartitionVanished:  # reading refuses it; here whoever waits only waits
            ended_ids = {name for name, part in known_parts.items() if part.closed}
            names = [info.partition_id for info in infos if info.partition_id not in ended_ids]
        places = [(name, str(known_parts[name].offset) if name in known_parts else "") for name in names]
        with self._lock:
            if self._look.has(places):
                return True
            due = self._look.due(names)
        remaining_seconds = min(due, deadline) - self._monotonic()
        if remaining_seconds > 0:
            self._backoff.pause(remaining_seconds, None)
        pages = self._pages(places, deadline)
        if pages is None:
            return True
        with self._lock:
            without_gap = all(page.records or page.at_head for page in pages.values())
            self._look.lag = {name: len(page.records) for (name, _), page in pages.items()} if without_gap else None
            if not any(page.records or page.ended for page in pages.values()):
                return False
            self._look.keep(infos, pages, self._monotonic() + self.poll_seconds)
        return True

    def _pages(self, places: Sequence[tuple[str, str]], deadline: float) -> dict[tuple[str, str], Page] | None:
        """A page of each shard, asked side by side; None where reading on from there is refused: a read tells why."""

        def ask(place: tuple[str, str]) -> Page:
            return self._asked_page(*place, PAGE_LIMIT, deadline=deadline, empty_pages=1)

        if not places:
            return {}
        try:
            if len(places) == 1:
                return {places[0]: ask(places[0])}
            with ThreadPoolExecutor(min(len(places), _SIDE_BY_SIDE)) as threads:
                futures = [threads.submit(ask, place) for place in places]
            return {place: future.result() for place, future in zip(places, futures, strict=True)}
        except LogRefused:
            return None

    def _listed(self, deadline: float) -> list[PartitionInfo]:
        """The shards, listed once in a while and whenever one of them ended: others come out of that only."""
        with self._lock:
            shards = self._look.listed(self._monotonic())
        if shards is None:
            shards = self._partitions(deadline)
            with self._lock:
                self._look.note_listing(shards, self._monotonic() + _LISTED_SECONDS)
        return shards

    def _behind(self, basis: Basis, limit: int, deadline: float | None = None) -> Iterator[tuple[str, Page]]:
        """Per shard: up to `limit` records behind the basis, and whether the shard ends with them unknown to the basis."""
        known_parts = basis.by_partition()
        for info in self._partitions(deadline):
            part = known_parts.get(info.partition_id)
            if part is not None and part.closed:
                yield info.partition_id, Page([], ended=False, at_head=True)
            else:
                after = None if part is None else str(part.offset) or None
                yield info.partition_id, self._scout.page(info.partition_id, after, limit, deadline)

    def _behind_page(self, shard_id: str, after: str, page: Page) -> PartitionBasis:
        """The basis behind a page that was read after a number."""
        return self._part(shard_id, page.records[-1]["SequenceNumber"] if page.records else after, page.ended)

    def _part(self, shard_id: str, offset: str, closed: bool = False) -> PartitionBasis:
        return self.position_kind.basis(shard_id, offset, closed=closed)


def wire_page(records: Sequence[RecordTypeDef]) -> WirePage:
    """Records of one shard in columns."""
    return WirePage(
        [record["SequenceNumber"] for record in records],
        [record["Data"] for record in records],
        [to_micros(record["ApproximateArrivalTimestamp"]) for record in records],
    )


def _partition_info(shard: ShardTypeDef, names: set[str]) -> PartitionInfo:
    parents = [parent for parent in (shard.get("ParentShardId"), shard.get("AdjacentParentShardId")) if parent]
    return PartitionInfo(
        shard["ShardId"],
        tuple(parent for parent in parents if parent in names),
        "EndingSequenceNumber" in shard["SequenceNumberRange"],
        tuple(parent for parent in parents if parent not in names),
    )


def _chunks(entries: list[_Entry]) -> Iterator[list[_Entry]]:
    """The entries in requests of a size that PutRecords takes."""
    chunk: list[_Entry] = []
    size = 0
    for entry in entries:
        length = len(entry.data) + len(entry.key.encode())
        if chunk and (len(chunk) == PUT_RECORDS or size + length > PUT_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += length
    if chunk:
        yield chunk
