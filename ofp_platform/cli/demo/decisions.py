"""The demo's questions about an event that it has just read from the log: the features of everybody in it, timed and proven."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import orjson

from ofp_platform.client import OfpClient, ReceivedFeatures, make_request, verify
from ofp_platform.decisions.event_reader import ReadEvent
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.observed_keys import with_observed_keys
from ofp_platform.vocabulary.serving import GetFeaturesRequest
from ofp_platform.vocabulary.times import format_time


@dataclass(frozen=True)
class Latency:
    """How long requests of one kind took, as the caller saw it: milliseconds."""

    kind: str
    requests: int
    p50: float
    p90: float
    p99: float


def request_for(
    event: ReadEvent,
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
    needed_fields = {*context_fields, *(fields[key_type] for key_type in key_types)}  # type: ignore[index]  # a KeyType is its text
    payload = with_observed_keys(event.payload, {name: key_type.value for key_type, name in fields.items()})
    if not all(isinstance(payload.get(name), str | int) for name in needed_fields):
        return None
    return make_request(
        context_pins=pins,
        feature_keys=[(key_type, payload[fields[key_type]]) for key_type in key_types],  # type: ignore[index]
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
            start = time.perf_counter()
            client.ask(request)
            seconds.append(time.perf_counter() - start)
    counted_seconds = sorted(seconds[len(seconds) // 10 :])
    p50, p90, p99 = (
        1000 * counted_seconds[min(len(counted_seconds) - 1, int(len(counted_seconds) * share))] for share in (0.5, 0.9, 0.99)
    )
    return Latency(kind, len(counted_seconds), p50, p90, p99)
