"""A small plane's log folded again by the offline plane, and what it served as anchors of parity."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.log.port import RecordBatch
from ofp_platform.log.span_records import log_batches
from ofp_platform.offline.parity.parity import ParityRuns, compare_all
from ofp_platform.offline.parity.parity_anchor import ParityAnchor
from ofp_platform.offline.parity.rebuilding import ReplayedRun
from ofp_platform.offline.replay.knowledge import Knowledge
from ofp_platform.offline.replay.known_events import fold_replay
from ofp_platform.online.serving.served_batches import record_of
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.storage.snapshot_records import SnapshotMissing
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, RuleRef, decision_id
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.offline.parity_record import ParityResult
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import Basis, Position
from ofp_platform.vocabulary.serving import FeatureDefinitionSet
from ofp_platform_tests.oracle.small_plane import RUN_CONFIG, SmallPlane
from ofp_platform_tests.oracle.strategies import SKEW

REQUEST = "e" * 64
Change = Callable[[RecordBatch], RecordBatch]


def replayed(
    plane: SmallPlane,
    folder: Path,
    *,
    basis: Basis | None = None,
    registry: CompiledRegistry | None = None,
    change: Change = lambda batch: batch,
    skew: int = SKEW,
) -> ReplayedRun:
    """The plane's log up to a basis (None: all of it), folded; `change` damages what is read of it."""
    spans = ReplayBasis.up_to(basis or plane.log.ends())
    used = registry or plane.registry
    batches = (change(batch) for span in spans.partitions for batch in log_batches(plane.log, span, 7))
    folded = fold_replay(batches, used, plane.pins, skew, folder, shards=3)
    return ReplayedRun(Knowledge(folded, spans), used.pack, plane.pins, RUN_CONFIG, plane.allowed_lateness)


def runs_of(plane: SmallPlane, run: ReplayedRun) -> ParityRuns:
    """That run alone, under the plane's own registry digest and run config."""
    return ParityRuns(plane.log.stream_name, plane.pins, {(plane.registry.digest, RUN_CONFIG): run})


def snapshot_anchor(answer: Answer) -> ParityAnchor:
    """A served answer as the snapshot record that is kept of it."""
    return ParityAnchor(answer.hash, record_of(answer))


def decision_of(answer: Answer, plane: SmallPlane, event_id: str = "decided") -> DecisionRecord:
    """The record of a decision that was made on a served answer."""
    provenance = orjson.loads(answer.body)["provenance"]
    requested = provenance["requested"]
    return DecisionRecord.model_validate(
        {
            "decision_id": decision_id(ContextPins(**provenance["context_pins"]), "payment", event_id),
            "context_pins": provenance["context_pins"],
            "event_type": "payment",
            "event_id": event_id,
            "event_position": Position(stream_name=plane.log.stream_name, partition_id="0000", offset=0),
            "as_of_time_utc": requested["as_of_time_utc"],
            "feature_snapshot_hash": provenance["feature_snapshot_hash"],
            "feature_keys": requested["feature_keys"],
            "feature_groups": requested["feature_groups"],
            "request_context": requested["request_context"],
            "feature_definition_set": FeatureDefinitionSet.model_validate(provenance["feature_definition_set"]),
            "run_config_digest": provenance["run_config_digest"],
            "input_basis": provenance["input_basis"],
            "graph_version": provenance["graph_version"],
            "rule": RuleRef(rule_name="a_rule", rule_version="v1", digest="d" * 64),
            "score": 1,
            "outcome": Outcome.REVIEW,
            "decided_at_utc": "2026-01-01T00:00:00Z",
        }
    )


def decision_anchor(record: DecisionRecord) -> ParityAnchor:
    """As the table of decisions has it."""
    return ParityAnchor(record.feature_snapshot_hash, canonical_bytes(record.wire()), record.decision_id)


def parity(
    anchors: Iterable[ParityAnchor], runs: ParityRuns, served: Iterable[Answer] = (), workers: int = 1
) -> list[ParityResult]:
    """Compare; the snapshots of `served` are those that the store has."""
    stored = {answer.hash: orjson.loads(answer.hashed) for answer in served}

    def hashed_of(snapshot_hash: str) -> dict[str, Any]:
        if snapshot_hash not in stored:
            raise SnapshotMissing(f"no snapshot {snapshot_hash}")
        found: dict[str, Any] = stored[snapshot_hash]
        return found

    return list(compare_all(anchors, runs, REQUEST, hashed_of, workers=workers))


def without(event_id: str) -> Change:
    """Leaves the records of an event out."""
    return lambda batch: kept(batch, [name != event_id for name in batch.event_ids])


def kept(batch: RecordBatch, keep: list[bool]) -> RecordBatch:
    """Some records of a batch."""
    places = [place for place, wanted in enumerate(keep) if wanted]
    columns = ("offsets", "event_ids", "event_types", "schema_versions", "emitted_at", "payload_hashes", "payloads", "amends")
    return replace(
        batch,
        **{name: [getattr(batch, name)[place] for place in places] for name in columns},
        **{name: getattr(batch, name)[places] for name in ("admitted_at", "ts", "pins_index")},
    )
