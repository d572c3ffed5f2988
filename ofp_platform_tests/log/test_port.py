"""Which partitions may be read now."""

from __future__ import annotations

from ofp_platform.log.port import AppendReceipt, PartitionInfo, RecordRefusal, RefusalReason, readable_partitions
from ofp_platform.vocabulary.position import Basis, OffsetKind, PartitionBasis, Position, make_basis

PARTITIONS = [
    PartitionInfo("a", (), True),
    PartitionInfo("b", (), True),
    PartitionInfo("c", ("a", "b")),
    PartitionInfo("d"),
]


def known(**closed: bool) -> Basis:
    kind = OffsetKind.AFTER_SEQUENCE_NUMBER
    parts = {name: PartitionBasis(partition_id=name, offset_kind=kind, offset="1", closed=end) for name, end in closed.items()}
    return make_basis("s", parts)


def test_a_child_waits_for_all_its_parents() -> None:
    assert readable_partitions(PARTITIONS, known()) == ["a", "b", "d"]
    assert readable_partitions(PARTITIONS, known(a=True, b=False, d=False)) == ["b", "d"]
    assert readable_partitions(PARTITIONS, known(a=True, b=True)) == ["c", "d"]


def test_a_receipt_keeps_the_order_of_the_batch() -> None:
    refusal = RecordRefusal(1, RefusalReason.INVALID_TIME, "ts_utc: no")
    receipt = AppendReceipt("s", [("0000", 4), refusal, ("0001", 9)])
    first = Position(stream_name="s", partition_id="0000", offset=4)
    last = Position(stream_name="s", partition_id="0001", offset=9)
    assert receipt.outcomes == [first, refusal, last]
    assert (receipt.appended, receipt.refusals) == (2, [refusal])
