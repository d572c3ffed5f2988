"""A receipt proves itself, and says only what can be."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from ofp_platform.vocabulary.offline.archive_receipt import ArchiveReceipt
from ofp_platform.vocabulary.position import OffsetKind


def receipt(**changes: Any) -> ArchiveReceipt:
    fields: dict[str, Any] = {
        "stream_name": "s",
        "partition_id": "0000",
        "offset_kind": OffsetKind.EXCLUSIVE_NEXT,
        "first": 10,
        "next": 20,
        "closed": False,
        "range_number": 1,
        "range_size": 10,
        "records": 9,
        "unreadable": 1,
        "admitted_min": "2024-05-01T10:00:01Z",
        "admitted_max": "2024-05-01T10:00:02Z",
        "segment_path": "archive/s/0000/segments/x.parquet",
        "segment_bytes": 10,
        "segment_digest": "0" * 64,
        "content_digest": "1" * 64,
        **changes,
    }
    return ArchiveReceipt.sealed(**fields)


def test_it_survives_the_wire() -> None:
    one = receipt()
    assert ArchiveReceipt.model_validate_json(one.wire_bytes()) == one
    sparse = receipt(offset_kind=OffsetKind.AFTER_SEQUENCE_NUMBER, first="", next="99", records=3, closed=True)
    assert ArchiveReceipt.model_validate_json(sparse.wire_bytes()) == sparse
    assert sparse.span.closed


def test_only_version_v1_proves_event_times() -> None:
    proof = {"contract_version": "v1", "event_time_max": "2024-05-01T10:00:03Z"}
    assert not receipt().proves_event_times
    assert "event_time_max" not in orjson.loads(receipt().wire_bytes())  # the bytes of what was written before stay the same
    newer = receipt(**proof)
    assert newer.proves_event_times
    assert ArchiveReceipt.model_validate_json(newer.wire_bytes()) == newer
    unreadable = receipt(
        contract_version="v1", event_time_max=None, records=0, unreadable=10, admitted_min=None, admitted_max=None
    )
    assert ArchiveReceipt.model_validate_json(unreadable.wire_bytes()) == unreadable
    changed = newer.model_dump(mode="json") | {"event_time_max": "2024-04-01T10:00:03Z"}
    with pytest.raises(ValidationError, match="receipt_digest is not the digest"):
        ArchiveReceipt.model_validate(changed)


def test_a_range_of_integers_with_gaps_has_at_most_a_record_for_each_position() -> None:
    proof = {"contract_version": "v2", "event_time_max": "2024-05-01T10:00:03Z"}
    gaps = receipt(**proof, records=3)
    assert (gaps.has_gaps, gaps.proves_event_times, receipt().has_gaps) == (True, True, False)
    assert ArchiveReceipt.model_validate_json(gaps.wire_bytes()) == gaps
    only_markers = receipt(
        contract_version="v2", event_time_max=None, records=0, unreadable=0, admitted_min=None, admitted_max=None
    )
    assert ArchiveReceipt.model_validate_json(only_markers.wire_bytes()) == only_markers
    for changes in ({"records": 10}, {"records": 3, "contract_version": "v1"}):
        with pytest.raises(ValidationError, match=r"do not fill|more than a range"):
            receipt(**{**proof, **changes})
    with pytest.raises(ValidationError, match="these offsets are no integers"):
        receipt(**proof, offset_kind=OffsetKind.AFTER_SEQUENCE_NUMBER, first="", next="99", records=3)


@pytest.mark.parametrize("field", ["records", "closed", "segment_bytes", "next", "content_digest", "receipt_digest"])
def test_a_changed_field_is_found(field: str) -> None:
    content = receipt().model_dump(mode="json")
    value = content[field]
    content[field] = (not value) if isinstance(value, bool) else value + 1 if isinstance(value, int) else "2" * 64
    with pytest.raises(ValidationError, match="receipt_digest is not the digest"):
        ArchiveReceipt.model_validate(content)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first": 21}, "reversed"),
        ({"first": ""}, "offset kind"),
        ({"records": 8}, r"do not fill \[10, 20\)"),
        ({"range_size": 9}, "more than a range of 9"),
        ({"complete": False}, "complete"),
        ({"schema_version": 2}, "schema_version"),
        ({"records": -1}, "records"),
        ({"contract_version": "v1"}, "belongs to contract version v1"),
        ({"contract_version": "v0", "event_time_max": "2024-05-01T10:00:03Z"}, "belongs to contract version v1"),
        ({"contract_version": "v1", "event_time_max": None}, "null where no record is readable"),
    ],
)
def test_what_no_receipt_says(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        receipt(**changes)
