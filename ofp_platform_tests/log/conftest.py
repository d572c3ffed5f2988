"""The logs under test, events to put into them, and a Kinesis that does what moto's does not."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import boto3
import numpy as np
import pytest
from botocore.exceptions import ClientError

from ofp_platform.log.kafka import KafkaLog
from ofp_platform.log.kafka_settings import KafkaSettings
from ofp_platform.log.kinesis import KinesisLog
from ofp_platform.log.port import EventLog
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.storage.postgres import open_pool
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.columns import LAST_MOMENT, NOT_EMITTED, EventColumns
from ofp_platform.vocabulary.envelope import Envelope
from ofp_platform.vocabulary.times import parse_time
from ofp_platform_tests.log.kafka_clusters import MockCluster

KEY = "payload.account_id"
Event = Callable[..., Envelope]


@pytest.fixture
def event() -> Event:
    """Makes event number n; its account is n modulo 50."""

    def make(number: int = 0, payload: dict[str, Any] | None = None, **overrides: Any) -> Envelope:
        fields: dict[str, Any] = {
            "event_id": f"txn-{number:06d}",
            "event_type": "card_authorisation",
            "schema_version": "v1",
            "ts_utc": f"2024-05-01T10:{number // 60 % 60:02d}:{number % 60:02d}Z",
            "scenario_id": "baseline",
            "run_id": "run-1",
            "manifest_fingerprint": "ab" * 32,
            "parameter_hash": "cd" * 32,
            "seed": 42,
            "payload": {"account_id": f"acc-{number % 50}", "amount_minor": number} if payload is None else payload,
        }
        return Envelope(**{**fields, **overrides})

    return make


@pytest.fixture
def columns(event: Event) -> EventColumns:
    """203 events of two runs, some of them emitted, refused, or in need of a closer look: number n is 'txn-n'."""
    events = [event(n) for n in range(200)]
    other = event(0, run_id="run-2", seed=None).pins()
    payloads: list[bytes | dict[str, Any]] = [canonical_bytes(e.payload) for e in events]
    payloads[20] = {"account_id": "acc-20", "nested": [1.5, {"é": None}]}
    payloads[21] = b'{"amount_minor": 1, "account_id": "acc-21"}'
    payloads[22] = b'{"amount_minor":1}'
    payloads[23] = b'{"account_id":"4111111111111111"}'
    payloads[24] = b"not JSON"
    payloads += [
        canonical_bytes({"account_id": "Zoë"}),
        b'{"account_id":7}',
        b'{"account_id":"acc-1","x":"%b"}' % (b"x" * 1_000_000),
    ]
    ts = [parse_time(e.ts_utc) for e in events] + [LAST_MOMENT, LAST_MOMENT + 1, 0]
    return EventColumns(
        event_ids=[f"txn-{n:06d}" for n in range(203)],
        event_types=["card_authorisation", "fraud_report", "card_authorisation"] * 67 + ["Upper", "last"],
        schema_versions=["v1"] * 203,
        ts=np.array(ts, np.int64),
        emitted_at=np.array([NOT_EMITTED if n % 3 else 10**15 + n for n in range(203)], np.int64),
        pins=[events[0].pins(), other],
        pins_index=(np.arange(203) % 2).astype(np.int32),
        payloads=payloads,
    )


@dataclass
class _Shard:
    shard_id: str
    low: int
    high: int
    parents: tuple[str, ...] = ()
    records: list[dict[str, Any]] = field(default_factory=list)
    closed_at: datetime | None = None
    opened_at: datetime | None = None

    @property
    def closed(self) -> bool:
        return self.closed_at is not None

    def is_listed(self, shard_filter: dict[str, Any] | None) -> bool:
        if shard_filter is None:
            return True
        moment = shard_filter["Timestamp"]
        is_open = self.closed_at is None or self.closed_at > moment
        return is_open and (shard_filter["Type"] == "FROM_TIMESTAMP" or self.opened_at is None or self.opened_at <= moment)


class FakeKinesis:
    """A Kinesis client over lists: sparse numbers, shards that close, trimming, expiry, empty pages, throttling on demand."""

    def __init__(self) -> None:
        self.shards: dict[str, _Shard] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.refused_entries: deque[set[int]] = deque()  # one set of indices per PutRecords to come
        self.errors: deque[tuple[str, Exception]] = deque()  # (operation, error) to raise, in order
        self.empty_pages = 0
        self.closed = False
        self.statuses = deque(["CREATING", "ACTIVE"])
        self.now = datetime(2024, 6, 1, tzinfo=UTC)
        self.retention_hours = 24
        self._created = self.now
        self._shards_made = 0
        self._number = 49_590_000_000_000_000_000_000_000
        self._iterators: dict[str, tuple[str, int]] = {}  # the shard, and the last number taken
        self._lock = threading.RLock()

    def close(self) -> None:
        self.closed = True

    @staticmethod
    def error(code: str, status: int = 400) -> ClientError:
        response: Any = {"Error": {"Code": code, "Message": "secret"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        return ClientError(response, "Any")

    def _enter(self, operation: str, arguments: dict[str, Any]) -> None:
        self.calls.append((operation, arguments))
        if self.errors and self.errors[0][0] == operation:
            raise self.errors.popleft()[1]
        if operation != "create_stream" and not self.shards:
            raise self.error("ResourceNotFoundException")

    def create_stream(self, **arguments: Any) -> dict[str, Any]:
        self._enter("create_stream", arguments)
        if self.shards:
            raise self.error("ResourceInUseException")
        count = arguments["ShardCount"]
        for n in range(count):
            self._add(2**128 * n // count, 2**128 * (n + 1) // count)
        return {}

    def _add(self, low: int, high: int, parents: tuple[str, ...] = ()) -> str:
        shard_id = f"shardId-{self._shards_made:012d}"
        self._shards_made += 1
        self.shards[shard_id] = _Shard(shard_id, low, high, parents, opened_at=self.now)
        return shard_id

    def describe_stream_summary(self, **arguments: Any) -> dict[str, Any]:
        self._enter("describe_stream_summary", arguments)
        status = self.statuses.popleft() if len(self.statuses) > 1 else self.statuses[0]
        summary = {"StreamStatus": status, "RetentionPeriodHours": self.retention_hours, "StreamCreationTimestamp": self._created}
        return {"StreamDescriptionSummary": summary, **self._metadata()}

    def increase_stream_retention_period(self, **arguments: Any) -> dict[str, Any]:
        self._enter("increase_stream_retention_period", arguments)
        assert arguments["RetentionPeriodHours"] > self.retention_hours
        self.retention_hours = arguments["RetentionPeriodHours"]
        return {}

    def _metadata(self) -> dict[str, Any]:
        return {"ResponseMetadata": {"HTTPHeaders": {"date": format_datetime(self.now, usegmt=True)}}}

    def pass_time(self, **hours: float) -> None:
        """Let time go by: what is older than the retention leaves, also shards that ended."""
        self.now += timedelta(**hours)
        kept_from = self.now - timedelta(hours=self.retention_hours)
        for shard in list(self.shards.values()):
            shard.records = [one for one in shard.records if one["ApproximateArrivalTimestamp"] > kept_from]
            if shard.closed_at is not None and shard.closed_at <= kept_from:
                del self.shards[shard.shard_id]

    def split(self, shard_id: str) -> tuple[str, str]:
        shard = self.shards[shard_id]
        shard.closed_at = self.now
        middle = (shard.low + shard.high) // 2
        return self._add(shard.low, middle, (shard_id,)), self._add(middle, shard.high, (shard_id,))

    def merge(self, first: str, second: str) -> str:
        one, two = self.shards[first], self.shards[second]
        one.closed_at = two.closed_at = self.now
        return self._add(min(one.low, two.low), max(one.high, two.high), (first, second))

    def trim(self, shard_id: str, count: int) -> None:
        del self.shards[shard_id].records[:count]

    def list_shards(self, **arguments: Any) -> dict[str, Any]:
        self._enter("list_shards", arguments)
        assert ("StreamName" in arguments) is not ("NextToken" in arguments), "the two exclude each other"
        shard_filter = arguments.get("ShardFilter")
        names = sorted(name for name, shard in self.shards.items() if shard.is_listed(shard_filter))
        start = int(arguments.get("NextToken", 0))
        page = []
        for shard in (self.shards[name] for name in names[start : start + 3]):
            sequence = {"StartingSequenceNumber": "0"} | ({"EndingSequenceNumber": "9"} if shard.closed else {})
            parents = dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False))
            page.append({"ShardId": shard.shard_id, "SequenceNumberRange": sequence, **parents})
        return {"Shards": page} | ({"NextToken": str(start + 3)} if start + 3 < len(names) else {})

    def put_records(self, **arguments: Any) -> dict[str, Any]:
        with self._lock:
            self._enter("put_records", arguments)
            entries = arguments["Records"]
            assert len(entries) <= 500
            assert sum(len(entry["Data"]) for entry in entries) <= 5 * 2**20
            refused = self.refused_entries.popleft() if self.refused_entries else set()
            results = []
            for index, entry in enumerate(entries):
                if index in refused:
                    results.append({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "secret"})
                else:
                    results.append(self.put(entry["PartitionKey"], entry["Data"]))
            return {"FailedRecordCount": len(refused), "Records": results}

    def put(self, key: str, data: bytes) -> dict[str, Any]:
        place = int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest(), "big")
        shard = next(s for s in self.shards.values() if not s.closed and s.low <= place < s.high)
        self._number += 1_000_003
        number = str(self._number)
        shard.records.append(
            {
                "Data": data,
                "PartitionKey": key,
                "SequenceNumber": number,
                "ApproximateArrivalTimestamp": self.now,
            }
        )
        return {"ShardId": shard.shard_id, "SequenceNumber": number}

    def get_shard_iterator(self, **arguments: Any) -> dict[str, Any]:
        self._enter("get_shard_iterator", arguments)
        if arguments["ShardId"] not in self.shards:
            raise self.error("ResourceNotFoundException")
        start = int(arguments.get("StartingSequenceNumber", -1))
        if start > self._number:
            raise self.error("InvalidArgumentException")
        if arguments["ShardIteratorType"] == "AT_SEQUENCE_NUMBER":
            start -= 1
        return {"ShardIterator": self._iterator(arguments["ShardId"], start)}

    def _iterator(self, shard_id: str, after: int) -> str:
        name = uuid.uuid4().hex
        self._iterators[name] = (shard_id, after)
        return name

    def expire_iterators(self) -> None:
        self._iterators.clear()

    def get_records(self, **arguments: Any) -> dict[str, Any]:
        with self._lock:
            self._enter("get_records", arguments)
            assert 1 <= arguments["Limit"] <= 10_000
            if arguments["ShardIterator"] not in self._iterators:
                raise self.error("ExpiredIteratorException")
            shard_id, after = self._iterators[arguments["ShardIterator"]]
            shard = self.shards[shard_id]
            following = [record for record in shard.records if int(record["SequenceNumber"]) > after]
            if following and self.empty_pages:
                self.empty_pages -= 1
                again = self._iterator(shard_id, after)
                return {"Records": [], "NextShardIterator": again, "MillisBehindLatest": 1000, **self._metadata()}
            page = following[: arguments["Limit"]]
            after = int(page[-1]["SequenceNumber"]) if page else after
            response = {"Records": page, "MillisBehindLatest": 0 if len(page) == len(following) else 1000, **self._metadata()}
            if not shard.closed or len(page) < len(following):
                response["NextShardIterator"] = self._iterator(shard_id, after)
            return response


@pytest.fixture
def fake_kinesis() -> FakeKinesis:
    """A Kinesis without streams."""
    return FakeKinesis()


Open = Callable[..., EventLog]


@pytest.fixture(params=["postgres", "moto", "fake", "kafka", "kafka_mock"])
def open_log(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Makes handles on one stream of `partitions` partitions by account: each call is another handle."""
    kind = request.param
    stream = f"stream-{uuid.uuid4().hex}"
    with ExitStack() as stack:
        if kind == "postgres":
            dsn = request.getfixturevalue("dsn")

            def open_one(partitions: int = 4) -> EventLog:
                pool = stack.enter_context(open_pool(dsn, max_size=4))
                return PostgresLog.create(pool, stream, partitions, KEY)
        elif kind == "kafka":
            settings: KafkaSettings = request.getfixturevalue("kafka_broker")

            def open_one(partitions: int = 4) -> EventLog:
                return stack.enter_context(closing(KafkaLog.create(settings, stream, partitions, KEY, poll_seconds=0.01)))
        elif kind == "kafka_mock":
            cluster: MockCluster = request.getfixturevalue("kafka_mock")

            def open_one(partitions: int = 4) -> EventLog:
                return stack.enter_context(closing(cluster.log(stream, partitions, KEY)))
        else:
            if kind == "moto":
                endpoint = request.getfixturevalue("moto_server")
                client = stack.enter_context(closing(boto3.client("kinesis", endpoint_url=endpoint, region_name="us-east-1")))
            else:
                client = request.getfixturevalue("fake_kinesis")

            def open_one(partitions: int = 4) -> EventLog:
                return KinesisLog.create(client, stream, partitions, KEY, poll_seconds=0.01)

        yield open_one
