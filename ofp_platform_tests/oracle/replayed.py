"""Records of the oracle's worlds as a reader hands them to a fold, and datasets of them built in a folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from ofp_platform.log.port import RecordBatch
from ofp_platform.offline.datasets.dataset_rows import dataset_rows
from ofp_platform.offline.datasets.feature_leakage import check_features
from ofp_platform.offline.datasets.feature_rows import FeatureJob, compute_features, dataset_blocks, feature_job, requested_groups
from ofp_platform.offline.datasets.row_graphs import RowGraphs
from ofp_platform.offline.replay.candidate_rows import candidate_scope
from ofp_platform.offline.replay.decision_basis import RecordedDecision
from ofp_platform.offline.replay.known_events import FoldedReplay, fold_replay
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.pack import load_pack
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, PerEntity, PerEvent, PerGrid
from ofp_platform.vocabulary.position import Basis, OffsetKind, PartitionBasis
from ofp_platform.vocabulary.serving import FeatureGroupRef
from ofp_platform_tests.oracle.fold import Record
from ofp_platform_tests.oracle.record_columns import record_batch
from ofp_platform_tests.oracle.strategies import PACK, PINS, SKEW

GROUPS = (
    ("every", "v1"),
    ("lists", "v1"),
    ("ratios", "v2"),
    ("switches", "v1"),
    ("texts", "v1"),
    ("whole", "v1"),
    ("shop", "v1"),
)
STREAM = "worlds"


@cache
def world_registry() -> CompiledRegistry:
    """PACK, compiled."""
    return compile_pack(load_pack(PACK))


def sparse(offset: int) -> str:
    """The sequence number that stands for a dense offset: texts of different lengths, beyond 64 bits."""
    return str(10**19 * offset + 7)


def record_batches(records: Iterable[Record], size: int = 7, *, dense: bool = True) -> list[RecordBatch]:
    """The records of each partition in its order, at most `size` at once, partitions taking turns."""
    by_partition: dict[str, list[Record]] = {}
    for record in records:
        by_partition.setdefault(record.partition_id, []).append(record)
    batches = []
    for start in range(0, max((len(part) for part in by_partition.values()), default=0), size):
        for part in by_partition.values():
            if chosen := sorted(part, key=lambda record: record.offset)[start : start + size]:
                offsets = [one.offset if dense else sparse(one.offset) for one in chosen]
                after = part_basis(chosen[0].partition_id, chosen[-1].offset + 1, dense=dense)
                batches.append(record_batch(chosen, offsets, after))
    return batches


def part_basis(partition_id: str, ends_before: int, *, dense: bool = True) -> PartitionBasis:
    """The basis of one partition that holds the records of offsets below `ends_before`."""
    if dense:
        return PartitionBasis(partition_id=partition_id, offset_kind=OffsetKind.EXCLUSIVE_NEXT, offset=ends_before)
    token = sparse(ends_before - 1) if ends_before else ""
    return PartitionBasis(partition_id=partition_id, offset_kind=OffsetKind.AFTER_SEQUENCE_NUMBER, offset=token)


def basis_of(ends: dict[str, int], *, dense: bool = True) -> Basis:
    """A basis from exclusive next offsets."""
    return Basis(stream_name=STREAM, partitions=tuple(part_basis(name, ends[name], dense=dense) for name in sorted(ends)))


def group_refs() -> tuple[FeatureGroupRef, ...]:
    """All groups of PACK."""
    return tuple(FeatureGroupRef(group_name=name, group_version=version) for name, version in GROUPS)


@dataclass(frozen=True)
class Built:
    """A dataset in memory, with what it was made from."""

    folded: FoldedReplay
    job: FeatureJob
    blocks: list[pa.Table]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """As Python values."""
        return [row for block in self.blocks for row in block.to_pylist()]


def build(
    batches: Iterable[RecordBatch],
    scope: PerEvent | PerEntity | PerGrid,
    as_of_basis: AsOfBasis,
    folder: Path,
    *,
    decisions: Iterable[RecordedDecision] = (),
    groups: tuple[FeatureGroupRef, ...] | None = None,
    workers: int = 1,
    shards: int = 3,
    registry: CompiledRegistry | None = None,
    graphs: RowGraphs | None = None,
) -> Built:
    """Fold, order, compute, and check for leaks."""
    registry = registry or world_registry()
    plans = requested_groups(registry, groups or group_refs())
    wanted = candidate_scope(scope, registry, plans) if isinstance(scope, PerEvent) else None
    folded = fold_replay(batches, registry, ContextPins(**PINS), SKEW, folder / "fold", shards=shards, scope=wanted)
    rows = dataset_rows(folded, scope, as_of_basis, folder / "rows", decisions, graphs=graphs)
    job = feature_job(folded, rows, registry, plans, folder / "features")
    compute_features(job, registry, workers)
    check_features(job, registry, "5eed")
    return Built(folded, job, list(dataset_blocks(job, registry)))
