"""The objects in the store, whoever put them there: archived ranges, and the lineages of trained models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson

from ofp_platform.log.archive_store import Archive
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.offline.archive_receipt import ArchiveReceipt
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan

_LEARNING = "learning"


def archived_ranges(
    ranges: OffsetRanges, archive: Archive, is_known: Callable[[str, int], bool]
) -> Iterator[tuple[int, ArchiveReceipt]]:
    """Closed ranges that have a receipt, by partition and number, without those that are known (partition id, number).

    Raises:
        ReceiptDamaged | ObjectStoreUnavailable | LogUnavailable: see there.
    """
    for partition_id, closed in sorted(ranges.closed().items()):
        for number in range(closed.count):
            if is_known(partition_id, number):
                continue
            bounds = ranges.bounds(partition_id, number)
            span = PartitionSpan(
                partition_id=partition_id,
                offset_kind=bounds.end.offset_kind,
                start=bounds.start.offset,
                next=bounds.end.offset,
            )
            receipt = archive.receipt(span)
            if receipt is not None:
                yield number, receipt


def model_lineages(objects: ObjectStore, is_known: Callable[[str], bool]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lineages of trained models, by path, without those that are known.

    Raises:
        ObjectStoreUnavailable: see there.
    """
    for path in objects.list(_LEARNING):
        name = path.rpartition("/")[2]
        if name.startswith("lineage-") and name.endswith(".json") and not is_known(path):
            yield path, orjson.loads(objects.get(path))
