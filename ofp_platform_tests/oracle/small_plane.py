"""A whole online plane on one database beside the oracle: every answer is held against the fold of the same records."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import pytest

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.online.projecting.chunk_merge import CHUNK_EVENTS
from ofp_platform.online.projecting.projector import ApplyReceipt, Projector
from ofp_platform.online.projecting.projector_settings import ProjectorSettings
from ofp_platform.online.serving.evaluation import Evaluator
from ofp_platform.online.serving.reader import Reader
from ofp_platform.online.serving.resolved_question import NO_GRAPH, Graph
from ofp_platform.online.state.chunk_spans import SPAN_CHUNKS
from ofp_platform.online.state.key_tails import TAIL_BYTES
from ofp_platform.online.state.known_identities import IdentityPolicy
from ofp_platform.online.state.projection import ProjectionConflict, ProjectionRow, open_projection, read_projection
from ofp_platform.online.state.pruning import LEAST_STEP
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.pack import load_pack, pack_content
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.canonical import jcs_bytes
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Basis, Position
from ofp_platform.vocabulary.profile import Limits
from ofp_platform.vocabulary.serving import GetFeaturesResponse
from ofp_platform_tests.oracle import fold
from ofp_platform_tests.oracle.strategies import LATENESS, PACK, PINS, SECOND, SKEW, START

RUN_CONFIG = "c" * 64
ADMITTED = START + 1_000 * SECOND
"""An admission time at which no event of a world is from the future."""
Key = tuple[str, str]


@cache
def small_registry() -> CompiledRegistry:
    """The oracle's pack, compiled."""
    return compile_pack(load_pack(PACK))


class ScatteredLog(PostgresLog):
    """A table log whose records go where the test says: `places` names the partition of each record to come."""

    def __init__(self, pool: Pool, stream_name: str, partition_count: int, partition_key: str) -> None:
        super().__init__(pool, stream_name, partition_count, partition_key)
        self.places: deque[str] = deque()

    def partition_of(self, key: str) -> str:
        return self.places.popleft()


class SmallPlane:
    """A stream with every record known to the test, one projection of it, and what the oracle says."""

    def __init__(
        self,
        pool: Pool,
        stream_name: str,
        *,
        partitions: int = 2,
        chunk_events: int = CHUNK_EVENTS,
        span_chunks: int = SPAN_CHUNKS,
        tail_bytes: int = TAIL_BYTES,
        least_step: int = LEAST_STEP,
        allowed_lateness: int = LATENESS,
        limits: Limits | None = None,
        status: str = "live",
        registry: CompiledRegistry | None = None,
        graph: Graph = NO_GRAPH,
    ) -> None:
        self.pool = pool
        self.registry = registry or small_registry()
        self.content = pack_content(self.registry.pack)
        self.pins = ContextPins(**PINS)
        self.settings = ProjectorSettings(
            SKEW,
            allowed_lateness,
            chunk_events=chunk_events,
            span_chunks=span_chunks,
            tail_bytes=tail_bytes,
            least_step=least_step,
            least_ahead=1,
            identities=IdentityPolicy(recent=8, fan_in=2),
        )
        self.allowed_lateness = allowed_lateness
        self.records: list[fold.Record] = []
        self.log = ScatteredLog.create(pool, stream_name, partitions, "event_id")
        assert isinstance(self.log, ScatteredLog)
        with pool.connection() as connection:
            self.projection_id = open_projection(
                connection, stream_name, self.pins, self.registry, RUN_CONFIG, status=status
            ).projection_id
        self.evaluator = Evaluator(self.registry, self.pins, RUN_CONFIG, allowed_lateness)
        self.limits = limits or Limits()
        self.reader = Reader(pool, self.projection_id, self.evaluator, self.limits, graph=graph)

    # ---- the log --------------------------------------------------------------------------------------------------

    def append(
        self, envelopes: Sequence[Mapping[str, Any]], places: Sequence[int | str] = (0,), admitted_at: int = ADMITTED
    ) -> list[Position]:
        """Append in one transaction; record i goes to partition `places[i % len(places)]`."""
        names = [info.partition_id for info in self.log.partitions()]
        for index in range(len(envelopes)):
            place = places[index % len(places)]
            self.log.places.append(place if isinstance(place, str) else names[place % len(names)])
        receipt = self.log.append(envelopes, lambda envelope: admitted_at)
        assert not receipt.refusals
        positions = []
        for envelope, outcome in zip(envelopes, receipt.outcomes, strict=True):
            assert isinstance(outcome, Position)
            assert isinstance(outcome.offset, int)
            positions.append(outcome)
            self.records.append(fold.Record(outcome.partition_id, outcome.offset, admitted_at, envelope))
        self.records.sort(key=lambda record: (record.partition_id, record.offset))
        return positions

    def load(self, records: Sequence[fold.Record]) -> None:
        """Append records in their order, each to its partition and at its time (their offsets are given anew)."""
        start = 0
        while start < len(records):
            stop = start
            while stop < len(records) and records[stop].admitted_at == records[start].admitted_at:
                stop += 1
            part = records[start:stop]
            self.append([record.envelope for record in part], [record.partition_id for record in part], part[0].admitted_at)
            start = stop

    # ---- the projection -------------------------------------------------------------------------------------------

    def projector(self) -> Projector:
        """Another projector of the projection, as a process that has just started has it."""
        return Projector(*self.parts)

    @property
    def parts(self) -> tuple[Pool, PostgresLog, CompiledRegistry, int, ProjectorSettings]:
        """The arguments of a projector of the projection, whatever keys are its own."""
        return self.pool, self.log, self.registry, self.projection_id, self.settings

    def row(self) -> ProjectionRow:
        """The projection as the store has it."""
        with self.pool.connection() as connection:
            return read_projection(connection, self.projection_id)

    def drain(self, projector: Projector | None = None, sizes: Iterator[int] | None = None) -> list[ApplyReceipt]:
        """Apply everything; the sizes of the batches come from `sizes` (at the end, or without: 1,000)."""
        projector = projector or self.projector()
        receipts = []
        while receipt := apply(projector, next(sizes, 1_000) if sizes else 1_000):
            receipts.append(receipt)
        return receipts

    # ---- questions ------------------------------------------------------------------------------------------------

    def request(
        self,
        keys: Sequence[Key],
        groups: Sequence[tuple[str, str]],
        as_of: int,
        context: Mapping[str, int | str] | None = None,
        **more: Any,
    ) -> bytes:
        """The body of a request."""
        body = {
            "context_pins": PINS,
            "feature_keys": [{"key_type": key_type, "key_id": key_id} for key_type, key_id in keys],
            "feature_groups": [{"group_name": name, "group_version": version} for name, version in groups],
            "as_of_time_utc": fold.time_text(as_of),
            **({} if context is None else {"request_context": context}),
            **more,
        }
        return json.dumps(body).encode()

    def known(self, basis: Basis) -> fold.Known:
        """known(B), by the oracle."""
        ends = {part.partition_id: int(part.offset) for part in basis.partitions}
        return fold.known_events(self.records, ends, PINS, self.content, SKEW)

    def hash_of(
        self,
        expected: fold.Answer,
        basis: Basis,
        keys: Sequence[Key],
        groups: Sequence[tuple[str, str]],
        as_of: int,
        context: Mapping[str, int | str] | None,
    ) -> str:
        """The snapshot hash as the law words it, from the oracle's values."""
        asked = [group for group in self.content["groups"] if (group["name"], group["version"]) in groups]
        used = {name for group in asked for name in group["request"]}
        body: dict[str, Any] = {
            "contract_version": "ofp_public_contracts_v0",
            "context_pins": PINS,
            "as_of_time_utc": fold.time_text(as_of),
            "feature_keys": [{"key_type": key_type, "key_id": key_id} for key_type, key_id in sorted(keys)],
            "feature_groups": [{"group_name": name, "group_version": version} for name, version in sorted(groups)],
            "registry_digest": self.registry.digest,
            "run_config_digest": RUN_CONFIG,
            "values": expected.by_key,
            "freshness": expected.freshness,
            "warnings": expected.warnings,
            "input_basis": basis.model_dump(mode="json"),
        }
        if used:
            body["request_context"] = {name: (context or {})[name] for name in used}
        return hashlib.sha256(jcs_bytes(body)).hexdigest()

    def hash_at(self, basis: Basis, keys: Sequence[Key], groups: Sequence[tuple[str, str]], as_of: int) -> str:
        """The hash that an answer on this basis must have."""
        expected = fold.snapshot(
            self.known(basis), self.content, keys, groups, as_of, allowed_lateness=self.allowed_lateness, request_context=None
        )
        return self.hash_of(expected, basis, keys, groups, as_of, None)

    def check(
        self,
        keys: Sequence[Key],
        groups: Sequence[tuple[str, str]],
        as_of: int,
        context: Mapping[str, int | str] | None = None,
    ) -> str:
        """Ask, and hold the answer against the oracle to the byte. The answer's hash, or the reason of the refusal."""
        return self.check_at(self.row().basis, keys, groups, as_of, context)

    def check_at(
        self,
        basis: Basis,
        keys: Sequence[Key],
        groups: Sequence[tuple[str, str]],
        as_of: int,
        context: Mapping[str, int | str] | None = None,
    ) -> str:
        """The same of an answer that is to be on this basis."""
        request = self.request(keys, groups, as_of, context)
        try:
            expected = fold.snapshot(
                self.known(basis),
                self.content,
                keys,
                groups,
                as_of,
                allowed_lateness=self.allowed_lateness,
                request_context=context,
            )
        except fold.BehindHorizon:
            wanted = Reason.AS_OF_BEFORE_HORIZON
            with pytest.raises(ContractError) as caught:
                self.reader.answer(request)
            assert caught.value.reason is wanted
            assert caught.value.context_pins == self.pins
            return wanted.value
        answer = self.reader.answer(request)
        body = json.loads(answer.body)
        provenance = body["provenance"]
        assert provenance["input_basis"] == basis.model_dump(mode="json")
        assert body["snapshot"]["by_key"] == expected.by_key
        assert provenance["freshness"] == expected.freshness
        assert provenance["warnings"] == expected.warnings
        assert answer.missing == sum(warning["code"] == "NO_DATA" for warning in expected.warnings)
        assert answer.hash == self.hash_of(expected, basis, keys, groups, as_of, context)
        assert answer.hash == hashlib.sha256(answer.hashed).hexdigest() == provenance["feature_snapshot_hash"]
        assert answer.body == jcs_bytes(body)
        GetFeaturesResponse.model_validate_json(answer.body)
        return answer.hash


def apply(projector: Projector, max_records: int) -> ApplyReceipt | None:
    """Apply once; when another projector was faster, read again and retry, as the drivers do."""
    try:
        return projector.apply_available(max_records=max_records)
    except ProjectionConflict:
        return projector.apply_available(max_records=max_records)


def payment(event_id: str, ts: int, **payload: Any) -> dict[str, Any]:
    """The envelope of a payment of PACK at START + ts microseconds."""
    usual = {"account_id": "a-1", "merchant_id": "m-1", "amount": 7, "status": "ok", "shop": "x", "online": True}
    return envelope("payment", event_id, ts, {**usual, **payload})


def envelope(event_type: str, event_id: str, ts: int, payload: Mapping[str, Any]) -> dict[str, Any]:
    """An envelope of the run under test at START + ts microseconds."""
    return {
        "event_id": event_id,
        "event_type": event_type,
        "schema_version": "1",
        "ts_utc": fold.time_text(START + ts),
        **PINS,
        "payload": dict(payload),
    }


def answer_hash(plane: SmallPlane, request: bytes) -> str:
    """The hash of an answer, or the reason of its refusal."""
    try:
        answer: Answer = plane.reader.answer(request)
    except ContractError as refusal:
        return refusal.reason.value
    return answer.hash
