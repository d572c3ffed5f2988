"""The demo's decision service: it has just read an event from the log, and asks for the features of everybody in it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ofp_platform.api.client import OfpClient, ReceivedFeatures, make_request, verify
from ofp_platform.log.port import EventLog, RecordBatch
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.serving import GetFeaturesRequest
from ofp_platform.vocabulary.times import format_time

_PAGE = 10_000


@dataclass(frozen=True)
class Event:
    """An event that a decision is made on, and where it stands in the log. `ts` in microseconds."""

    position: Position
    event_id: str
    ts: int
    payload: dict[str, Any]


@dataclass(frozen=True)
class Latency:
    """How long requests of one kind took, as the caller saw it: milliseconds."""

    kind: str
    requests: int
    p50: float
    p90: float
    p99: float


def latest_events(log: EventLog, pins: ContextPins, event_type: str, per_partition: int) -> list[Event]:
    """The newest events of that type by event time, out of the last records of each partition; the oldest first."""
    found: list[Event] = []
    for end in log.ends().partitions:
        tail: deque[Event] = deque(maxlen=per_partition)
        at = end.model_copy(update={"offset": max(0, end.offset - per_partition)}) if isinstance(end.offset, int) else None
        while len(batch := log.read(end.partition_id, at, _PAGE)):
            tail.extend(_events(log.stream_name, batch, pins, event_type))
            at = batch.next
        found += tail
    return sorted(found, key=lambda event: (event.ts, event.event_id))


def _events(stream_name: str, batch: RecordBatch, pins: ContextPins, event_type: str) -> Iterator[Event]:
    for index, offset in enumerate(batch.offsets):
        in_time = batch.ts[index] <= batch.admitted_at[index]
        if batch.event_types[index] == event_type and in_time and batch.pins[batch.pins_index[index]] == pins:
            where = Position(stream_name=stream_name, partition_id=batch.partition_id, offset=offset)
            yield Event(where, batch.event_ids[index], int(batch.ts[index]), orjson.loads(batch.payloads[index]))


def request_for(
    event: Event,
    registry: CompiledRegistry,
    event_type: str,
    pins: ContextPins,
    *,
    groups: Collection[tuple[str, str]] | None = None,
    causal: bool = True,
) -> GetFeaturesRequest | None:
    """The request of a decision on an event: its keys, as of its own time, for all groups or those named.

    `causal`: the event itself must be in the basis of the answer. None where the payload lacks what is needed: such an
    event was not applied either.
    """
    fields = registry.pack.events[event_type].keys
    plans = [
        plan for ref, plan in sorted(registry.groups.items()) if plan.key_type in fields and (groups is None or ref in groups)
    ]
    key_types = sorted({plan.key_type for plan in plans})
    context_fields = {name for plan in plans for name, _ in plan.request_fields}
    needed = {*context_fields, *(fields[key_type] for key_type in key_types)}  # type: ignore[index]  # a KeyType is its text
    if not all(isinstance(event.payload.get(name), str | int) for name in needed):
        return None
    return make_request(
        context_pins=pins,
        feature_keys=[(key_type, event.payload[fields[key_type]]) for key_type in key_types],  # type: ignore[index]
        feature_groups=[(plan.name, plan.version) for plan in plans],
        as_of_time_utc=format_time(event.ts),
        request_context={name: event.payload[name] for name in sorted(context_fields)} or None,
        at_least_basis=[event.position] if causal else None,
        request_id=event.event_id,
    )


def ask_verified(client: OfpClient, requests: Sequence[GetFeaturesRequest]) -> list[ReceivedFeatures]:
    """The answers, each with its hash recomputed from the response alone.

    Raises:
        AnswerNotTrusted: a hash does not fit.
    """
    answers = [client.ask(request) for request in requests]
    for answer in answers:
        verify(answer)
    return answers


def values_digest(answers: Sequence[ReceivedFeatures]) -> str:
    """SHA-256 over the values alone: equal for equal values, whatever the log they came through."""
    return digest_of([orjson.loads(answer.body)["snapshot"]["by_key"] for answer in answers])


def measure(client: OfpClient, kind: str, requests: Sequence[GetFeaturesRequest], rounds: int) -> Latency:
    """Ask one request after the other over one connection, `rounds` times through; the first tenth warms up."""
    seconds: list[float] = []
    for _ in range(rounds):
        for request in requests:
            started = time.perf_counter()
            client.ask(request)
            seconds.append(time.perf_counter() - started)
    counted = sorted(seconds[len(seconds) // 10 :])
    p50, p90, p99 = (1000 * counted[min(len(counted) - 1, int(len(counted) * share))] for share in (0.5, 0.9, 0.99))
    return Latency(kind, len(counted), p50, p90, p99)
