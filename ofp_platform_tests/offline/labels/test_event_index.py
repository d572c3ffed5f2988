"""The index of labels: every event is found exactly, whatever its hash, and hashed once however many blocks are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.offline.labels import event_index
from ofp_platform.offline.labels.event_index import EventIndex, IndexedLabels
from ofp_platform.offline.labels.label_columns import OBSERVED_TIME, ResolvedLabels, RowEvents, label_columns
from ofp_platform.offline.labels.label_leakage import check_no_leak
from ofp_platform.vocabulary.offline.build_plan import BuildPolicy, LabelBasis
from ofp_platform.vocabulary.times import format_time

EVENTS = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["", "e-1", "e-2", "é", "b", "1 "])), max_size=12)
START = 1_700_000_000_000_000
POLICY = BuildPolicy(policy_id="test", revision=1, min_label_coverage="0.0", unlabelled_means=0)


def columns_of(events: list[tuple[str, str]], chunks: int = 1) -> tuple[Any, Any]:
    arrays = [pa.array([event[part] for event in events], pa.string()) for part in (0, 1)]
    if chunks == 1:
        return arrays[0], arrays[1]
    cut = len(events) // 2
    return tuple(pa.chunked_array([array[:cut], array[cut:]], pa.string()) for array in arrays)


@pytest.mark.parametrize("colliding", [False, True])
@given(entries=EVENTS, rows=EVENTS, chunks=st.sampled_from([1, 2]))
def test_all_pairs_of_one_event_are_found(colliding: bool, entries: Any, rows: Any, chunks: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if colliding:  # then only class and id tell them apart
            patch.setattr(event_index, "_text_hashes", lambda texts: np.zeros(len(texts), np.uint64))
        index = EventIndex(*columns_of(entries, chunks))
        found = list(zip(*(part.tolist() for part in index.find(*columns_of(rows, 3 - chunks))), strict=True))
    assert found == [(row, entry) for row, event in enumerate(rows) for entry, other in enumerate(entries) if event == other]


@pytest.mark.parametrize("blocks", [1, 8])
def test_every_label_is_hashed_once_however_many_blocks_there_are(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    text_hashes = event_index._text_hashes

    def watched(texts: Any) -> Any:
        hashed.append(len(texts))
        return text_hashes(texts)

    monkeypatch.setattr(event_index, "_text_hashes", watched)
    events = [("payment", f"e-{number}") for number in range(1_000)]
    classes, ids = columns_of(events)
    observed = pa.array(np.full(1_000, START), pa.int64()).cast(OBSERVED_TIME)
    names = ["event_class", "event_id", "value", "observed_time"]
    table = pa.table([classes, ids, pa.array(np.arange(1_000) % 2), observed], names)
    basis = LabelBasis(label_type="fraud", as_of_utc=format_time(START + 1), maturity_seconds=0, next_sequence=1_000)
    resolved, assertions = ResolvedLabels(table, basis), IndexedLabels(table)
    each = 1_000 // blocks
    labelled = 0
    for start in range(0, 1_000, each):
        rows = RowEvents(classes[start : start + each], ids[start : start + each], np.full(each, START, np.int64))
        columns = label_columns(resolved, rows, POLICY)
        assert columns["label_value"].to_pylist() == (np.arange(start, start + each) % 2).tolist()
        labelled += check_no_leak(columns, rows, basis, POLICY, assertions)
    assert labelled == 1_000
    assert sum(hashed) == 3_000  # resolved, assertions, and the rows once for both
