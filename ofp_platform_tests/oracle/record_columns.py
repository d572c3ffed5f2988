"""Records of the oracle in columns, as a reader of the log makes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ofp_platform.log.port import RecordBatch
from ofp_platform.vocabulary.canonical import canonical_bytes, jcs_bytes
from ofp_platform.vocabulary.envelope import hash_of_parts, ijson_bytes
from ofp_platform.vocabulary.identity import PIN_NAMES, ContextPins
from ofp_platform.vocabulary.position import PartitionBasis
from ofp_platform_tests.oracle.fold import Record, micros, time_text


def record_batch(records: Sequence[Record], offsets: Sequence[int | str], after: PartitionBasis) -> RecordBatch:
    """Records of the partition of `after`, at these offsets in it; `after` is the basis behind the last of them."""
    pins = [ContextPins(**{name: one.envelope[name] for name in PIN_NAMES if name in one.envelope}) for one in records]
    ts = [micros(one.envelope["ts_utc"]) for one in records]
    payloads = [ijson_bytes(one.envelope["payload"]) for one in records]
    amends = [jcs_bytes(one.envelope["amends"]) if "amends" in one.envelope else None for one in records]
    return RecordBatch(
        partition_id=after.partition_id,
        offsets=list(offsets),
        admitted_at=np.array([one.admitted_at for one in records], np.int64),
        event_ids=[one.envelope["event_id"] for one in records],
        event_types=[one.envelope["event_type"] for one in records],
        schema_versions=[one.envelope["schema_version"] for one in records],
        ts=np.array(ts, np.int64),
        emitted_at=[None] * len(records),
        pins=pins,
        pins_index=np.arange(len(records), dtype=np.int32),
        payload_hashes=[
            hash_of_parts(
                one.envelope["event_type"],
                one.envelope["schema_version"],
                time_text(moment),
                canonical_bytes(run.wire()),
                body,
                amended,
            )
            for one, moment, run, body, amended in zip(records, ts, pins, payloads, amends, strict=True)
        ],
        payloads=payloads,
        amends=amends,
        next=after,
    )
