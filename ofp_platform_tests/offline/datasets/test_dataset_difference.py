"""What differs between two published datasets, on small ones of every kind of row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ofp_platform.offline.datasets.dataset_difference import _unequal, content_difference, meaning_differences
from ofp_platform.offline.datasets.publication import load_manifest
from ofp_platform.offline.runs.builder import build
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform_tests.oracle.labelled_plane import LabelledPlane

ANALYSIS = {"purpose": "analysis", "label": None, "policy": {"policy_id": "analysis", "revision": 1}}
ACTIVITY = [{"group_name": "account_activity", "group_version": "v1"}]


@pytest.fixture(scope="module")
def labelled(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelledPlane]:
    made = LabelledPlane.prepare(module_dsn, tmp_path_factory.mktemp("difference"))
    with made.plane:
        yield made


def built(labelled: LabelledPlane, name: str, **changes: Any) -> DatasetManifest:
    build_context = labelled.build_context
    run = build(build_context, build_context.ledger.submit(labelled.intent(name, **{**ANALYSIS, **changes})).run_key)
    assert run.outcome is not None, run.refusal
    return load_manifest(build_context.objects, name, run.outcome["dataset_identity"])


def grid(until: str, **more: Any) -> dict[str, Any]:
    scope = {
        "kind": "per_grid",
        "key_type": "account",
        "from_utc": "2026-01-10T00:00:00Z",
        "to_utc": until,
        "step_seconds": 86_400,
    }
    return {"scope": {**scope, **more}, "feature_groups": ACTIVITY, "as_of_basis": "event_time"}


def test_meaning_and_rows(labelled: LabelledPlane) -> None:
    everything = built(labelled, "everything")
    some = built(
        labelled,
        "some",
        feature_groups=ACTIVITY,
        scope={"kind": "per_event", "event_types": ["card_payment"], "from_utc": "2026-01-10T00:00:00Z"},
    )
    assert meaning_differences(everything, everything) == []
    assert content_difference(labelled.objects, everything, everything) is None
    paths = {found.path: (found.one, found.other) for found in meaning_differences(everything, some)}
    assert paths == {
        "feature_groups.merchant_activity:v1": ("present", "absent"),
        "scope.from_utc": ("absent", "2026-01-10T00:00:00Z"),
        "scope.payload_fields": ("absent", []),
        "scope.payload_fields.0": ("amount_minor", "absent"),
    }
    found = content_difference(labelled.objects, everything, some)
    assert found is not None
    # a payment without a merchant feeds the accounts, and is a row of the second only
    assert found.only_in_other == 1
    assert found.shared_rows == some.row_count - found.only_in_other
    assert found.only_in_one == everything.row_count - found.shared_rows
    # what a payment could know does not depend on which other payments are in the set
    assert found.columns == {}
    assert "payload__amount_minor" in found.columns_only_in_one
    assert found.columns_only_in_other == ()


def test_values_that_differ_are_counted(labelled: LabelledPlane) -> None:
    spans = labelled.everything.model_dump(mode="json")
    shorter = {**spans, "partitions": [{**span, "next": span["next"] - 60} for span in spans["partitions"]]}
    whole = built(labelled, "whole", **grid("2026-01-20T00:00:00Z"))
    early = built(labelled, "early", **grid("2026-01-20T00:00:00Z"), replay={"select": "offsets", "basis": shorter})
    found = content_difference(labelled.objects, whole, early)
    assert found is not None
    assert found.shared_rows == min(whole.row_count, early.row_count)
    assert 0 < found.columns["account_activity_v1__sum_amount_30d"] <= found.shared_rows


def test_rows_of_different_kinds(labelled: LabelledPlane, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of different kinds"):
        content_difference(labelled.objects, built(labelled, "events"), built(labelled, "grid", **grid("2026-01-12T00:00:00Z")))


def test_lists_that_differ_are_counted() -> None:
    kind = pa.list_(pa.struct([("category", pa.string()), ("value", pa.int64())]))
    one, other = {"category": "x", "value": 1}, {"category": "x", "value": 2}
    values = pa.chunked_array([pa.array([[one], None, None, [one, other]], kind), pa.array([[one]], kind)])
    others = pa.chunked_array([pa.array([[other], None, [one], [one, other], [one, one]], kind)])
    assert _unequal(values, others) == 3
    assert _unequal(values, values) == 0
