"""A plan and its manifest, small and valid."""

from ofp_platform.vocabulary.offline.build_intent import DatasetBuild, request_id
from ofp_platform.vocabulary.offline.build_plan import (
    ROW_ORDER,
    BuildPlan,
    BuildPolicy,
    LabelBasis,
    ParityRequest,
    PinnedPack,
    PinnedRunFacts,
)
from ofp_platform.vocabulary.offline.dataset_manifest import (
    DatasetColumn,
    DatasetManifest,
    Gates,
    ReplayReceipt,
    manifest_of,
)

NAME = "small_training"
PINS = {"scenario_id": "s", "run_id": "r1", "manifest_fingerprint": "a" * 64, "parameter_hash": "b" * 64}
SPAN = {"partition_id": "0000", "offset_kind": "exclusive_next", "start": 0, "next": 10}


def a_dataset_intent(**changes: object) -> DatasetBuild:
    """A valid intent of a training set; `changes` replace its fields."""
    content: dict[str, object] = {
        "context_pins": PINS,
        "run_facts_ref": "facts/r1/1",
        "stream_name": "payments",
        "policy": {"policy_id": "fraud_training", "revision": 1},
        "dataset_name": NAME,
        "purpose": "training",
        "replay": {"select": "offsets", "basis": {"stream_name": "payments", "partitions": [SPAN]}},
        "feature_pack": {"pack_id": "handbook", "revision": 1},
        "feature_groups": [{"group_name": "account_activity", "group_version": "v1"}],
        "scope": {"kind": "per_event", "event_types": ["transaction"]},
        "as_of_basis": "ingest_time",
        "label": {"label_type": "fraud", "as_of_utc": "2018-08-01T00:00:00Z", "maturity_seconds": 604800},
    }
    return DatasetBuild.model_validate({**content, **changes})


def a_plan(intent: DatasetBuild | None = None) -> BuildPlan:
    """What a resolver makes of the intent."""
    intent = intent or a_dataset_intent()
    replay = intent.replay
    assert replay.select == "offsets"
    label = intent.label
    return BuildPlan(
        request_id=request_id(intent),
        intent=intent,
        context_pins=intent.context_pins,
        stream_name=intent.stream_name,
        run_facts=PinnedRunFacts(reference=intent.run_facts_ref, digest="c" * 64),
        replay_basis=replay.basis,
        cut_over=(),
        feature_pack=PinnedPack(pack_id="handbook", revision=1, digest="d" * 64),
        feature_groups=intent.feature_groups,
        clock_skew_us=300_000_000,
        allowed_lateness_us=86_400_000_000,
        run_config_digest="e" * 64,
        scope=intent.scope,
        as_of_basis=intent.as_of_basis,
        purpose=intent.purpose,
        label_basis=None
        if label is None or label.as_of_utc is None
        else LabelBasis(
            label_type=label.label_type, as_of_utc=label.as_of_utc, maturity_seconds=label.maturity_seconds, next_sequence=9
        ),
        policy=BuildPolicy(policy_id="fraud_training", revision=1, min_label_coverage="0.950000"),
        parity_request=ParityRequest.of(intent.parity_anchors, ()),
        ofs_code_release_id="ofp-platform-0.1.0",
    )


def a_manifest() -> DatasetManifest:
    """A manifest that names no files yet."""
    return manifest_of(
        a_plan(),
        row_count=15,
        row_order=ROW_ORDER,
        content_digest="9" * 64,
        columns=(DatasetColumn(name="event_id", type="string", role="row_key"),),
        values_out_of_range={},
        files=(),
        gates=Gates(
            completeness=ReplayReceipt(records=10, applied=7, duplicates=1, failed=1, ignored=1), feature_rows_checked=15
        ),
    )
