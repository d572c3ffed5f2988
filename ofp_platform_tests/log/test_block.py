"""Blocks: any slice of any split is the records themselves."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.log import block
from ofp_platform.log.admission import Admission
from ofp_platform.log.admitted import Admitted, AdmittedColumns
from ofp_platform.log.block import AMENDING_CODEC, CODEC, StoredBlock, decode, encode, split
from ofp_platform.vocabulary.envelope import Envelope
from ofp_platform.vocabulary.position import OffsetKind, PartitionBasis

AMENDS = {"event_class": "a", "event_id": "e-0", "ts_utc": "2020-01-01T00:00:00Z", "kind": "void"}


def admitted(number: int, run: str, event_type: str, emitted: bool, amends: bool = False, text: str = "") -> Admitted:
    fields: dict[str, Any] = {
        "event_id": f"e-{number}",
        "event_type": event_type,
        "schema_version": f"v{number % 3}",
        "ts_utc": f"20{number % 90 + 10}-01-01T00:00:00Z",
        "emitted_at_utc": "1960-01-01T00:00:00Z" if emitted else None,
        "scenario_id": "s",
        "run_id": run,
        "manifest_fingerprint": "0" * 64,
        "parameter_hash": "1" * 64,
        "payload": {"n": number, "text": text},
        "amends": AMENDS if amends else None,
    }
    outcome = Admission("event_id").admit(0, Envelope(**fields))
    assert isinstance(outcome, Admitted)
    return outcome


def columns(records: list[Admitted]) -> AdmittedColumns:
    made = AdmittedColumns()
    for place, record in enumerate(records):
        made.add(place, record)
    return made


def payloads(records: list[Admitted]) -> list[bytes]:
    return [record.payload for record in records]


KINDS = st.tuples(
    st.sampled_from(["r1", "r2"]), st.sampled_from(["a", "b"]), st.booleans(), st.sampled_from([False, False, False, True])
)
RECORDS = st.lists(KINDS, min_size=1, max_size=30)


def basis(offset: int) -> PartitionBasis:
    return PartitionBasis(partition_id="0000", offset_kind=OffsetKind.EXCLUSIVE_NEXT, offset=offset)


@given(RECORDS, st.data())
def test_any_slice_of_any_blocks_is_the_records(kinds: list[tuple[str, str, bool, bool]], data: st.DataObject) -> None:
    records = [admitted(n, *kind) for n, kind in enumerate(kinds)]
    times = [10**15 - n for n in range(len(records))]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(records)))) | {0, len(records)})
    origin = data.draw(st.integers(0, 2**50))
    blocks = []
    for low, high in pairwise(cuts):
        encoded = encode(columns(records[low:high]), times[low:high])
        assert (encoded.record_count, encoded.first_admitted, encoded.last_admitted) == (
            high - low,
            times[high - 1],
            times[low],
        )
        assert encoded.codec == (AMENDING_CODEC if any(kind[3] for kind in kinds[low:high]) else CODEC)
        blocks.append(StoredBlock(origin + low, None, encoded.codec, encoded.raw_bytes, encoded.data))
    start = data.draw(st.integers(0, len(records) - 1))
    stop = data.draw(st.integers(start + 1, len(records)))
    touched = [b for b, low, high in zip(blocks, cuts, cuts[1:], strict=False) if low < stop and high > start]
    batch = decode(touched, origin + start, origin + stop, basis(origin + stop))
    assert batch.offsets == list(range(origin + start, origin + stop))
    assert [batch.envelope(n) for n in range(len(batch))] == [record.envelope for record in records[start:stop]]
    assert batch.payload_hashes == [record.payload_hash for record in records[start:stop]]
    assert batch.admitted_at.tolist() == times[start:stop]
    assert len(set(batch.pins)) == len(batch.pins)


def test_blocks_are_bounded_by_count_and_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "MAX_RECORDS", 3)
    monkeypatch.setattr(block, "MAX_BYTES", 300)
    small = [admitted(n, "r", "a", False) for n in range(7)]
    assert split(payloads(small)) == [(0, 3), (3, 6), (6, 7)]
    large = [admitted(n, "r", "a", False, text="x" * 200) for n in range(3)]
    assert split(payloads(large)) == [(0, 1), (1, 2), (2, 3)]
    assert split(payloads([admitted(0, "r", "a", False, text="x" * 500), *small[:2]])) == [(0, 1), (1, 3)]
