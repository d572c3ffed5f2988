"""One dataset, many ways to build it: the content digest does not tell them apart."""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ofp_platform.offline.datasets.content_digest import ContentDigest
from ofp_platform.offline.datasets.dataset_files import DatasetFiles, write_dataset
from ofp_platform.offline.datasets.dataset_rows import dataset_rows
from ofp_platform.offline.datasets.feature_rows import (
    FeatureJob,
    compute_features,
    dataset_blocks,
    feature_job,
    requested_groups,
)
from ofp_platform.offline.replay.candidate_rows import candidate_scope
from ofp_platform.offline.replay.known_events import fold_replay
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, PerEvent
from ofp_platform_tests.oracle.fold import Record, time_text
from ofp_platform_tests.oracle.replayed import group_refs, record_batches, world_registry
from ofp_platform_tests.oracle.strategies import PINS, SECOND, SKEW, START

SCOPE = PerEvent(event_types=("payment", "refund"), payload_fields=("amount",))


@cache
def records() -> tuple[Record, ...]:
    """600 records of three partitions with copies, late events and ties."""
    rng = random.Random(20_240_501)
    ends = {"p0": 0, "p1": 0, "p2": 0}
    made: list[Record] = []
    for number in range(600):
        partition = rng.choice(sorted(ends))
        second = number // 10
        payload = {
            "account_id": f"a-{rng.randrange(40)}",
            "merchant_id": f"m-{rng.randrange(7)}",
            "amount": rng.randrange(10_000),
            "status": rng.choice(("ok", "odd", "no")),
            "shop": rng.choice("xyz"),
            "online": rng.random() < 0.5,
        }
        kind = rng.choice(("payment", "payment", "payment", "refund", "report"))
        envelope = {
            "event_id": f"e-{number}",
            "event_type": kind,
            "schema_version": "1",
            "ts_utc": time_text(START + second * SECOND),
            **PINS,
            "payload": payload,
        }
        late = rng.choice((0, 0, 0, 5, 40))
        made.append(Record(partition, ends[partition], START + (second + late) * SECOND, envelope))
        ends[partition] += 1
        if number % 25 == 0:
            made.append(replace(made[rng.randrange(len(made))], partition_id=partition, offset=ends[partition]))
            ends[partition] += 1
    return tuple(made)


def prepared(folder: Path, basis: AsOfBasis, listed: tuple[Record, ...], size: int = 50, shards: int = 4) -> FeatureJob:
    registry = world_registry()
    plans = requested_groups(registry, group_refs())
    scope = candidate_scope(SCOPE, registry, plans)
    folded = fold_replay(
        record_batches(listed, size), registry, ContextPins(**PINS), SKEW, folder / "fold", shards=shards, scope=scope
    )
    rows = dataset_rows(folded, SCOPE, basis, folder / "rows")
    return feature_job(folded, rows, registry, plans, folder / "features")


def written(job: FeatureJob, file_rows: int = 1_000_000) -> DatasetFiles:
    files = write_dataset(job.folder / "files", dataset_blocks(job, world_registry()), file_rows=file_rows)
    again = ContentDigest(files.schema)
    for path in files.paths:
        again.update(pq.read_table(path))
    assert again.hexdigest() == files.content_digest
    return files


@cache
def reference(basis: AsOfBasis) -> str:
    with tempfile.TemporaryDirectory() as folder:
        job = prepared(Path(folder), basis, records())
        compute_features(job, world_registry(), 1)
        return written(job).content_digest


def shuffled() -> tuple[Record, ...]:
    """The same events appended in another order: other offsets, other partitions."""
    order = list(records())
    random.Random(3).shuffle(order)
    ends = {"p0": 0, "p1": 0}
    moved = []
    for number, record in enumerate(order):
        partition = f"p{number % 2}"
        moved.append(replace(record, partition_id=partition, offset=ends[partition]))
        ends[partition] += 1
    return tuple(moved)


@pytest.mark.parametrize("basis", [AsOfBasis.EVENT_TIME, AsOfBasis.INGEST_TIME])
@pytest.mark.parametrize(
    ("workers", "file_rows", "size", "shards", "moved"),
    [(2, 1_000_000, 50, 4, False), (1, 100, 50, 4, False), (2, 37, 7, 1, False), (1, 1_000_000, 600, 9, True)],
    ids=["two workers", "small files", "one shard", "appended in another order"],
)
def test_neither_workers_nor_files_nor_shards_nor_order_of_appends_change_the_content(
    tmp_path: Path, basis: AsOfBasis, workers: int, file_rows: int, size: int, shards: int, moved: bool
) -> None:
    job = prepared(tmp_path, basis, shuffled() if moved else records(), size, shards)
    compute_features(job, world_registry(), workers)
    assert written(job, file_rows).content_digest == reference(basis)


def test_blocks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofp_platform.offline.datasets.dataset_rows.BLOCK_ROWS", 64)
    monkeypatch.setattr("ofp_platform.offline.replay.candidate_rows.BATCH_ROWS", 30)
    monkeypatch.setattr("ofp_platform.offline.replay.key_shards.BUFFERED_ROWS", 50)
    job = prepared(tmp_path, AsOfBasis.INGEST_TIME, records(), 20)
    assert len(job.rows.blocks) > 4
    compute_features(job, world_registry(), 2)
    assert written(job).content_digest == reference(AsOfBasis.INGEST_TIME)


def test_the_two_kinds_of_knowledge_are_two_contents() -> None:
    assert reference(AsOfBasis.EVENT_TIME) != reference(AsOfBasis.INGEST_TIME)
