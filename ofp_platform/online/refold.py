"""The forensic rebuild of one snapshot: the log folded again, from its first record to the recorded basis.

Nothing that the projection stored is used: no chunks, no summaries, no index of identities. Known events are a plain set, as
semantics.md has it. That makes it slow, and a witness: equal bytes mean that the state served what the log says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ofp_platform.kernel.native import Int64Array
from ofp_platform.kernel.snapshot import Answer
from ofp_platform.log.port import EventLog, RecordBatch
from ofp_platform.online.chunk_codec import pack
from ofp_platform.online.evaluation import Evaluator, StoredChunk, StoredState
from ofp_platform.online.serving import QUIET_POSTURE
from ofp_platform.registry.models import event_class
from ofp_platform.registry.question import check_request
from ofp_platform.registry.routing import APPLIED, Router
from ofp_platform.vocabulary.identity import pins_digest
from ofp_platform.vocabulary.position import Basis, OffsetKind, PartitionBasis, basis_text, order
from ofp_platform.vocabulary.profile import Limits
from ofp_platform.vocabulary.serving import GetFeaturesRequest

_PAGE = 20_000
Key = tuple[str, str]


class NotRebuildable(Exception):
    """A recorded snapshot that this log and registry cannot rebuild; the text says why."""


@dataclass
class _Known:
    """What is known of the log so far, for some keys. Columns are int64[column_count] each, in the order of the log."""

    events: set[tuple[str, str, bytes]] = field(default_factory=set)
    columns: dict[Key, list[Int64Array]] = field(default_factory=dict)
    watermark: int | None = None


def refold(
    log: EventLog,
    evaluator: Evaluator,
    hashed: Mapping[str, Any],
    *,
    clock_skew_us: int,
    on_records: Callable[[int], None] = lambda count: None,
) -> Answer:
    """The answer that the log gives to the question of a recorded snapshot (`SnapshotRecord.hashed`), at its basis.

    `on_records` is told how many records were read since it was last called.

    Raises:
        NotRebuildable: another stream, registry or policy than the record's.
        LogError: the log does not hold the records any more, or does not answer.
    """
    basis = Basis.model_validate(hashed["input_basis"])
    stated = (basis.stream_name, hashed["registry_digest"], hashed["run_config_digest"])
    if stated != (log.stream_name, evaluator.registry.digest, evaluator.run_config_digest):
        raise NotRebuildable("the snapshot is of another stream, registry or run config than those given")
    request = GetFeaturesRequest.model_validate(
        {
            "context_pins": hashed["context_pins"],
            "feature_keys": hashed["feature_keys"],
            "feature_groups": hashed["feature_groups"],
            "as_of_time_utc": hashed["as_of_time_utc"],
            "request_context": hashed.get("request_context"),
        }
    )
    everything = Limits(max_keys=len(request.feature_keys), max_groups=len(request.feature_groups))
    question = check_request(request, evaluator.registry, evaluator.pins, everything)
    known = _Known(columns={key: [] for key in question.keys})
    router = Router(evaluator.registry)
    run = pins_digest(evaluator.pins)
    for part in basis.partitions:
        for batch, count in _records_until(log, part):
            _fold(batch, count, known, router, evaluator, run, clock_skew_us)
            on_records(count)
    chunks = [_as_chunks(known.columns[key], evaluator.registry.layouts[key[0]].ties, question.as_of) for key in question.keys]
    return evaluator.answer(question, StoredState(0, basis_text(basis), known.watermark, chunks), QUIET_POSTURE)


def _records_until(log: EventLog, bound: PartitionBasis) -> Iterator[tuple[RecordBatch, int]]:
    """Batches from the first record on, with how many records of each lie before the bound."""
    dense = bound.offset_kind is OffsetKind.EXCLUSIVE_NEXT
    # a dense log is asked for offset 0 by name: where its beginning was trimmed, that is an error and not another answer
    first = PartitionBasis(partition_id=bound.partition_id, offset_kind=bound.offset_kind, offset=0 if dense else "")
    at = first
    while order(at.offset) < order(bound.offset):
        left = order(bound.offset) - order(at.offset) if dense else _PAGE
        batch = log.read(bound.partition_id, at, min(_PAGE, left))
        if batch.next == at:
            raise NotRebuildable(f"partition {bound.partition_id} ends before the recorded basis")
        limit = order(bound.offset) - (1 if dense else 0)
        yield batch, sum(1 for offset in batch.offsets if order(offset) <= limit)
        at = batch.next


def _fold(
    batch: RecordBatch, count: int, known: _Known, router: Router, evaluator: Evaluator, run: str, clock_skew_us: int
) -> None:
    mine = np.array([pins_digest(pins) == run for pins in batch.pins], np.bool_)[batch.pins_index[:count]]
    keep = np.flatnonzero(mine & (batch.ts[:count] <= batch.admitted_at[:count] + clock_skew_us)).tolist()
    if not keep:
        return
    routed = router.route(
        event_types=[batch.event_types[index] for index in keep],
        event_ids=[batch.event_ids[index] for index in keep],
        ts=batch.ts[keep],
        payload_hashes=[batch.payload_hashes[index] for index in keep],
        payloads=[batch.payloads[index] for index in keep],
    )
    fresh = np.zeros(len(keep), np.bool_)
    for place in np.flatnonzero(routed.status == APPLIED).tolist():
        index = keep[place]
        kind = event_class(evaluator.registry.pack.events, batch.event_types[index])
        identity = (kind, batch.event_ids[index], batch.payload_hashes[index])
        if identity not in known.events:
            known.events.add(identity)
            fresh[place] = True
    if fresh.any():
        newest = int(batch.ts[keep][fresh].max())
        known.watermark = newest if known.watermark is None else max(newest, known.watermark)
    for key_type, touched in routed.touched.items():
        for column, (place, key_id) in enumerate(zip(touched.record_index.tolist(), touched.key_ids, strict=True)):
            wanted = known.columns.get((key_type, key_id))
            if wanted is not None and fresh[place]:
                wanted.append(touched.matrix[:, column])


def _as_chunks(columns: list[Int64Array], ties: bool, as_of: int) -> list[StoredChunk]:
    """All events of one key as one chunk, by time (and identity, where the layout keeps it)."""
    if not columns:
        return []
    matrix = np.stack(columns, axis=1)
    identity = matrix[2:4].view(np.uint64) if ties else np.empty((0, matrix.shape[1]), np.uint64)
    matrix = np.ascontiguousarray(matrix[:, np.lexsort((*identity[::-1], matrix[0]))])
    first, last = int(matrix[0, 0]), int(matrix[0, -1])
    return [StoredChunk(first, last, b"", pack(matrix))] if first <= as_of else []
