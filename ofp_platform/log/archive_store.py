"""Where the archive of a stream lies in the object store, and reading it with every digest checked.

`archive/<stream>/<partition>/segments/<first>-<next>.parquet` and `.../receipts/<first>-<next>.json`; `first` and `next` are
16 digits in a dense log, and else the tokens ('start' = before the first record). A segment without a receipt is not in
the archive: a writer may still be at work on it. All objects are write-once.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from ofp_platform.log.archive_segment import SegmentDamaged, SegmentFile
from ofp_platform.storage.objects import ObjectNotFound, ObjectStore
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.offline.archive_receipt import ArchiveReceipt
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import OffsetKind, place

ROOT = "archive"
_START = "start"


class SegmentMissing(Exception):
    """There is a receipt, but not the segment that it names."""


class ReceiptDamaged(Exception):
    """The object is not a receipt of what its path says, or was changed after it was written."""


@dataclass(frozen=True)
class Archive:
    """The archive of one stream."""

    store: ObjectStore
    stream_name: str

    def segment_path(self, span: PartitionSpan) -> str:
        """The object of the segment that holds exactly this span."""
        return f"{self._folder(span.partition_id)}/segments/{_name(span)}.parquet"

    def receipt_path(self, span: PartitionSpan) -> str:
        """The object of its receipt."""
        return f"{self.receipt_folder(span.partition_id)}/{_name(span)}.json"

    def receipt_folder(self, partition_id: str) -> str:
        """The folder of the receipts of a partition."""
        return f"{self._folder(partition_id)}/receipts"

    def partition_ids(self) -> list[str]:
        """The partitions of which something lies in the archive, in order; also those that the log has lost."""
        folders = self.store.folders(f"{ROOT}/{self.stream_name}")
        return sorted(folder.replace("=2F", "/").replace("=3A", ":") for folder in folders)

    def spans(self, partition_id: str, kind: OffsetKind) -> list[PartitionSpan]:
        """The spans that have a receipt, by their positions; from the names alone. They may overlap.

        Raises:
            ReceiptDamaged: an object among the receipts that has not the name of one.
        """
        folder = self.receipt_folder(partition_id)
        found = []
        for path in self.store.list(folder):
            span = _span(partition_id, kind, path.removeprefix(f"{folder}/").removesuffix(".json"))
            if span is None or self.receipt_path(span) != path:
                raise ReceiptDamaged(f"{path} in {self.store.url} lies among receipts and has not the name of one")
            found.append(span)
        return sorted(found, key=lambda span: (place(span.first), place(span.end)))

    def receipts(self, partition_id: str, kind: OffsetKind) -> list[ArchiveReceipt]:
        """All receipts of a partition, by their positions.

        Raises:
            ReceiptDamaged: see there.
        """
        found = [self.receipt(span) for span in self.spans(partition_id, kind)]
        return [receipt for receipt in found if receipt is not None]

    def receipt(self, span: PartitionSpan) -> ArchiveReceipt | None:
        """The receipt of exactly this span, None where there is none.

        Raises:
            ReceiptDamaged: see there.
        """
        path = self.receipt_path(span)
        try:
            data = self.store.get(path)
        except ObjectNotFound:
            return None
        try:
            receipt = ArchiveReceipt.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place_text = ".".join(map(str, first["loc"])) or "the receipt"
            raise ReceiptDamaged(f"{path} in {self.store.url} is not a receipt: {place_text}: {first['msg']}") from error
        named = (receipt.stream_name, receipt.partition_id, receipt.offset_kind, receipt.first, receipt.next)
        if named != (self.stream_name, span.partition_id, span.offset_kind, span.start, span.next):
            raise ReceiptDamaged(f"{path} in {self.store.url} is the receipt of another span")
        if receipt.segment_path != self.segment_path(span) or receipt.wire_bytes() != data:
            raise ReceiptDamaged(f"{path} in {self.store.url} was changed after it was written")
        return receipt

    def segment(self, receipt: ArchiveReceipt) -> SegmentFile:
        """The segment, its bytes checked against the receipt.

        Raises:
            SegmentMissing | SegmentDamaged: see there.
        """
        path = receipt.segment_path
        try:
            data = self.store.get(path)
        except ObjectNotFound:
            raise SegmentMissing(f"{path} is missing in {self.store.url}; its receipt is there") from None
        if len(data) != receipt.segment_bytes:
            text = f"{path} in {self.store.url} has {len(data)} bytes, its receipt says {receipt.segment_bytes}"
            raise SegmentDamaged(text)
        if sha256_hex(data) != receipt.segment_digest:
            raise SegmentDamaged(f"{path} in {self.store.url} was changed: its digest is not that of its receipt")
        return SegmentFile(data, path, receipt.offset_kind)

    def _folder(self, partition_id: str) -> str:
        # a partition id may hold '/' and ':', which are no part of one path element everywhere; it never holds '='
        return f"{ROOT}/{self.stream_name}/{partition_id.replace('/', '=2F').replace(':', '=3A')}"


def _name(span: PartitionSpan) -> str:
    if span.offset_kind.is_integer:
        return f"{span.start:016d}-{span.next:016d}"
    return f"{span.start or _START}-{span.next or _START}"


def _span(partition_id: str, kind: OffsetKind, name: str) -> PartitionSpan | None:
    first, _, following = name.partition("-")
    try:
        ends = [kind.parse(text.removeprefix(_START)) for text in (first, following)]
        return PartitionSpan(partition_id=partition_id, offset_kind=kind, start=ends[0], next=ends[1])
    except ValueError:
        return None
