"""Proves that no label in a build was learnt after its as-of: from the rows and the raw assertions, not from the resolver."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ofp_platform.offline.labels.event_index import IndexedLabels
from ofp_platform.offline.labels.label_columns import OBSERVED_TIME, RowEvents
from ofp_platform.vocabulary.offline.build_plan import BuildPolicy, LabelBasis
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.times import parse_time


def check_no_leak(
    columns: pa.Table,
    events: RowEvents,
    basis: LabelBasis,
    policy: BuildPolicy,
    assertions: IndexedLabels,
) -> int:
    """Hold n rows with their label columns against every assertion of the label type. How many rows have a label.

    Args:
        columns: label_value, label_observed_time, label_is_mature.
        assertions: of the table that `LabelStore.assertions` gives, those observed later included.

    Raises:
        BuildRefused: LEAKAGE_DETECTED; the message names the first row at fault. A value that was observed after the as-of,
            that no assertion supports, or that is inferred from silence before the row had matured.
    """
    as_of = parse_time(basis.as_of_utc)
    rows = pa.table(
        {
            "row": pa.array(np.arange(columns.num_rows)),
            "event_class": events.classes.cast(pa.string()),
            "event_id": events.ids.cast(pa.string()),
            "value": columns["label_value"],
            "observed_time": columns["label_observed_time"].cast(OBSERVED_TIME),
        }
    )
    too_young = pa.array(events.times > as_of - basis.maturity_seconds * 1_000_000)
    observed_time = rows["observed_time"]
    _refuse_any(
        rows.filter(pc.greater(observed_time.cast(pa.int64()), as_of)),
        f"its label was observed after the as-of {basis.as_of_utc}",
    )
    _refuse_any(
        rows.filter(pc.and_(columns["label_is_mature"], too_young)),
        f"it counts as mature, and is younger than {basis.maturity_seconds} s as of {basis.as_of_utc}",
    )
    is_inferred = pc.and_(pc.is_valid(rows["value"]), pc.is_null(observed_time))
    _refuse_any(
        rows.filter(pc.and_(is_inferred, too_young)),
        "it has a value without an assertion before silence means anything",
    )
    if policy.unlabelled_means is None:
        _refuse_any(rows.filter(is_inferred), "it has a value without an assertion, and the policy gives silence no meaning")
    else:
        is_other_value = pc.not_equal(rows["value"], policy.unlabelled_means)
        _refuse_any(
            rows.filter(pc.and_(is_inferred, is_other_value)), "it has a value that neither an assertion nor the policy gives"
        )
    row_index, entries = assertions.index.find(rows["event_class"], rows["event_id"], events.hashes)
    is_supported = np.zeros(rows.num_rows, np.bool_)
    supports = np.ones(len(entries), np.bool_)
    for name in ("value", "observed_time"):
        stated = rows[name].take(pa.array(row_index)).cast(pa.int64())
        asserted = assertions.table[name].take(pa.array(entries)).cast(pa.int64())
        supports &= pc.fill_null(pc.equal(stated, asserted), False).to_numpy()
    is_supported[row_index[supports]] = True
    is_unsupported = pc.and_(pc.is_valid(observed_time), pa.array(~is_supported))
    _refuse_any(rows.filter(is_unsupported), "no assertion gives it that value at that time")
    return int(columns.num_rows - columns["label_value"].null_count)


def _refuse_any(rows: pa.Table, why: str) -> None:
    if not rows.num_rows:
        return
    first = rows.sort_by("row").slice(0, 1).to_pylist()[0]
    raise BuildRefused(
        BuildReason.LEAKAGE_DETECTED,
        f"{rows.num_rows:,} rows hold a label that was not known; the first is row {first['row']}"
        f" (event {first['event_class']} {first['event_id']}): {why}",
        "label",
    )
