"""A replay folded on Spark is the replay folded by one process: fates, events, candidates, anomalies and names."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.log.archive_segment import SegmentDamaged
from ofp_platform.offline.replay.archived_fold import DividedReplay, divide
from ofp_platform.offline.replay.record_fold import FoldTally
from ofp_platform.offline.replay.spark_fold import SparkFold, share_blocks
from ofp_platform.offline.sources.spark_engine import append_block
from ofp_platform_tests.offline.replay.test_archived_fold import World, content, damage, world_of
from ofp_platform_tests.oracle.replayed import world_registry

pytestmark = pytest.mark.filterwarnings("ignore")  # Spark's own, of its JVM's pipes and its Pandas versions


def divided(world: World, folder: Path) -> DividedReplay:
    return divide(world.archive, world.spans, world.cut_over, world_registry(), world.settings(folder), workers=None)


@pytest.mark.parametrize(("seed", "dense"), [(1, True), (2, False)])
def test_executors_fold_what_one_process_folds(tmp_path: Path, spark: Any, seed: int, dense: bool) -> None:
    world = world_of(seed, tmp_path, dense=dense)
    expected = content(world.alone(tmp_path / "alone"))
    assert expected["facts"].anomalies
    folder = tmp_path / "fold"
    fold = SparkFold(spark, divided(world, folder), folder)
    replay = fold.finish(batch for span in fold.remaining_spans for batch in world.reader.batches(span, 7))
    assert fold.blocks is not None
    events = fold.blocks.filter(fold.blocks.folder.startswith("events-"))  # they stay with the executors
    for row in events.toLocalIterator():
        append_block(folder, row["folder"], row["file"], row["content"])
    assert content(replay) == expected


def test_a_task_gives_its_tally_and_needs_no_folder_of_the_driver(tmp_path: Path) -> None:
    world = world_of(3, tmp_path, dense=True)
    share = pickle.loads(pickle.dumps(divided(world, tmp_path / "nowhere").shares[0]))
    blocks = [row for block in share_blocks(share) for row in block.to_pylist()]
    (tally,) = (pickle.loads(row["content"]) for row in blocks if row["folder"] == "tally")
    assert isinstance(tally, FoldTally)
    assert tally.counts["records"] > 0
    assert {row["folder"].partition("-")[0] for row in blocks} >= {"events", "identities", "records", "candidates", ""}
    assert not (tmp_path / "nowhere").exists()


def test_what_is_wrong_with_the_archive_comes_out_as_it_is(tmp_path: Path, spark: Any) -> None:
    world = world_of(5, tmp_path, dense=True)
    damage(world, tmp_path, "segments")
    fold = SparkFold(spark, divided(world, tmp_path / "fold"), tmp_path / "fold")
    with pytest.raises(SegmentDamaged, match="p0/segments"):
        fold.finish([])
