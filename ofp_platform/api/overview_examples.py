"""Worked examples of lists: of the run of the other examples."""

from __future__ import annotations

from typing import Any

from ofp_platform.api.build_examples import intent_example, run_example
from ofp_platform.api.examples import decision_example, request_example, snapshot_record_example
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
    DataFile,
    DatasetColumn,
    DatasetManifest,
    FeatureSkew,
    Gates,
    ReplayReceipt,
    SkewTable,
    data_path,
    manifest_of,
)
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import Basis

_GROUP = {"group_name": "account_activity", "group_version": "v1"}
_PACK = PinnedPack(pack_id="card_payments", revision=1, digest="5" * 64)
_FEATURE = "account_activity_v1__sum_amount_30d"
_REBUILT = "8" * 64


def _build() -> dict[str, Any]:
    run = run_example()
    copied = (
        *("run_key", "publish_only", "attempts", "attempt_limit", "publish_attempts", "publish_attempt_limit"),
        *("submitted_at_utc",),
    )
    return {
        **{name: run[name] for name in copied},
        "state": "RUNNING",
        "attempts": 1,
        "intent": "dataset_build",
        "dataset_name": "fraud_by_payment",
        "submitted_by": "trainer",
        "refusal": None,
        "size": {"records": 200_360, "rows": 151_200, "bytes": 181_440_000},
        "newest_stage": _stage("size", "2026-03-31T12:01:40Z"),
        "dataset_identity": None,
        "changed_at_utc": "2026-03-31T12:01:02Z",
    }


def _stage(name: str, recorded_at: str) -> dict[str, Any]:
    return {"stage": name, "attempt": 1, "publish_attempt": 0, "digest": "7" * 64, "recorded_at_utc": recorded_at}


def build_list_example() -> dict[str, Any]:
    """One build that runs."""
    return {"kind": "ofs_build_list", "contract_version": "v0", "builds": [_build()], "next_cursor": None}


def build_progress_example() -> dict[str, Any]:
    """Its stages so far."""
    times = {"plan": "2026-03-31T12:01:03Z", "replay": "2026-03-31T12:01:31Z", "size": "2026-03-31T12:01:40Z"}
    stages = [_stage(name, recorded_at) for name, recorded_at in times.items()]
    return {"kind": "ofs_build_progress", "contract_version": "v0", "build": _build(), "stages": stages}


def _comparison() -> dict[str, Any]:
    return {
        "comparison_id": "6" * 64,
        "requested_by": "run",
        "match": 5_119,
        "mismatch": 1,
        "uncheckable": 2,
        "first_as_of_utc": "2026-03-31T00:00:04Z",
        "last_as_of_utc": request_example()["as_of_time_utc"],
    }


def parity_list_example() -> dict[str, Any]:
    """One comparison."""
    return {"kind": "ofs_parity_list", "contract_version": "v0", "comparisons": [_comparison()], "next_cursor": None}


def parity_report_example() -> dict[str, Any]:
    """A comparison in which one decision was served what the log does not give."""
    mismatch = {
        "decision_id": decision_example()["decision_id"],
        "online_snapshot_ref": snapshot_record_example()["feature_snapshot_hash"],
        "offline_snapshot_ref": _REBUILT,
        "as_of_time_utc": request_example()["as_of_time_utc"],
        "where": "values",
        "key_type": "account",
        "key_id": "account-0000117",
        **_GROUP,
        "feature": "sum_amount_30d",
        "served": 2_500,
        "rebuilt": 1_250,
        "differences": 1,
        "detail": "the served value is that of a window in which one event counts twice",
        "events": [],
    }
    return {
        "kind": "ofs_parity_report",
        "contract_version": "v0",
        "comparison": _comparison(),
        "days": [{"day": "2026-03-31", **_GROUP, "match": 5_119, "mismatch": 1, "uncheckable": 0}],
        "undated": 2,
        "uncheckable": [{"reason": "SNAPSHOT_MISSING", "count": 2}],
        "mismatches": [mismatch],
        "corrected": [{"day": "2026-03-31", **_GROUP, "decisions": 14, "values": 31}],
        "next_before": None,
    }


def manifest_example(wire: dict[str, Any] | None = None) -> DatasetManifest:
    """The manifest of an intent, by default that of the other examples."""
    intent = DatasetBuild.model_validate(wire or intent_example())
    basis = Basis.model_validate(snapshot_record_example()["hashed"]["input_basis"])
    assert intent.label is not None  # the example has labels
    plan = BuildPlan(
        request_id=request_id(intent),
        intent=intent,
        context_pins=intent.context_pins,
        stream_name=intent.stream_name,
        run_facts=PinnedRunFacts(reference=intent.run_facts_ref, digest="4" * 64),
        replay_basis=ReplayBasis.up_to(basis),
        cut_over=(),
        feature_pack=_PACK,
        feature_groups=intent.feature_groups,
        clock_skew_us=300_000_000,
        allowed_lateness_us=86_400_000_000,
        run_config_digest=snapshot_record_example()["hashed"]["run_config_digest"],
        scope=intent.scope,
        as_of_basis=intent.as_of_basis,
        purpose=intent.purpose,
        label_basis=LabelBasis(
            label_type="fraud", as_of_utc="2026-03-29T00:00:00Z", maturity_seconds=604_800, next_sequence=1_204
        ),
        policy=BuildPolicy(policy_id="fraud_training", revision=1, min_label_coverage="0.950000"),
        parity_request=ParityRequest.of(intent.parity_anchors, ()),
        policy_rev=f"3.{'2' * 64}",
        ofs_code_release_id="ofp-platform-0.1.0",
    )
    path = data_path("fraud_by_payment", plan.dataset_identity, ["3" * 64], 0)
    return manifest_of(
        plan,
        row_count=151_200,
        row_order=ROW_ORDER,
        content_digest="9" * 64,
        columns=(
            DatasetColumn(name="event_id", type="string", role="row_key"),
            DatasetColumn(name=_FEATURE, type="int64", role="feature"),
            DatasetColumn(name="label", type="int64", role="label"),
        ),
        values_out_of_range={},
        skew=SkewTable(
            rows=151_200,
            decisions=5_122,
            compared=5_120,
            features={_FEATURE: FeatureSkew(compared=5_120, differing=31, share="0.006055")},
        ),
        files=(DataFile(path=path, rows=151_200, bytes=9_072_000, sha256="3" * 64),),
        gates=Gates(
            completeness=ReplayReceipt(records=200_360, applied=200_317, duplicates=41, failed=2, ignored=0),
            feature_rows_checked=1_000,
        ),
    )


def _dataset() -> dict[str, Any]:
    manifest = manifest_example()
    return {
        "dataset_name": manifest.dataset_name,
        "dataset_identity": manifest.dataset_identity,
        "request_id": manifest.request_id,
        "published_at_utc": "2026-03-31T12:06:11Z",
        "supersedes": None,
        "superseded_by": [],
        "manifest": {"state": "AS_RECORDED", "problems": []},
        "purpose": "training",
        "as_of_basis": "ingest_time",
        "rows": manifest.row_count,
        "columns": len(manifest.columns),
        "bytes": 9_072_000,
        "feature_pack": _PACK.model_dump(mode="json"),
        "label_type": "fraud",
        "policy_rev": manifest.policy_rev,
        "skew": {
            "decisions": 5_122,
            "compared": 5_120,
            "features": 1,
            "differing_features": 1,
            "worst_feature": _FEATURE,
            "worst_differing": 31,
            "worst_compared": 5_120,
        },
    }


def dataset_list_example() -> dict[str, Any]:
    """One published dataset."""
    return {"kind": "ofs_dataset_list", "contract_version": "v0", "datasets": [_dataset()], "next_cursor": None}


def published_dataset_example() -> dict[str, Any]:
    """The same with its manifest."""
    head = {"kind": "ofs_published_dataset", "contract_version": "v0"}
    return {**head, "entry": _dataset(), "manifest": manifest_example().wire()}


def pack_operations_example() -> dict[str, Any]:
    """The switch to another pack."""
    step = {
        "kind": "governance_fact",
        "contract_version": "v0",
        "fact": "pack_operation",
        "operation_id": "1" * 64,
        "step": "switched",
        "plan_digest": "0" * 64,
        "stream_name": "payments",
        "context_pins": request_example()["context_pins"],
        "from_projection": 1,
        "from_registry": "5" * 64,
        "to_projection": 2,
        "to_registry": "4" * 64,
        "actor": "ada",
        "reason": "counts of a week",
        "at_utc": "2026-03-31T11:20:00Z",
        "records": 200_360,
        "milliseconds": 1_840,
        "compared_groups": 3,
        "compared_keys": 1_000,
        "served_hash": "3" * 64,
        "basis": snapshot_record_example()["hashed"]["input_basis"],
        "kept_until_utc": "2026-04-07T11:20:00Z",
        "refusal": None,
    }
    return {"kind": "ofp_pack_operations", "contract_version": "v0", "steps": [step], "next_cursor": None}


def bundle_history_example() -> dict[str, Any]:
    """A bundle was put in force."""
    bundle = {"bundle_name": "card_payments", "digest": "7" * 64}
    event = {
        "kind": "bundle_event",
        "contract_version": "v0",
        "context_pins": request_example()["context_pins"],
        "sequence": 2,
        "step": "ACTIVATED",
        "bundle": bundle,
        "scope": {"environment": "card-payments", "mode": "fraud", "slot": "active"},
        "actor": "ada",
        "reason": "gates passed",
        "at_utc": "2026-03-31T11:20:00Z",
    }
    position = {"stream_name": "control", "partition_id": "0000", "offset": 3}
    return {
        "kind": "bundle_history",
        "contract_version": "v0",
        "context_pins": request_example()["context_pins"],
        "steps": [{"event": event, "position": position}],
        "next_cursor": "2",
    }


def bundles_in_force_example() -> dict[str, Any]:
    """The bundle of the example of a history."""
    step = bundle_history_example()["steps"][0]
    in_force = {"bundle": step["event"]["bundle"], "sequence": step["event"]["sequence"], "position": step["position"]}
    return {
        "kind": "bundles_in_force",
        "contract_version": "v0",
        "context_pins": step["event"]["context_pins"],
        "scopes": [{"scope": step["event"]["scope"], "in_force": in_force}],
    }


def health_history_example() -> dict[str, Any]:
    """Three spans: one that nobody observed, all well, behind."""

    def sample(minute: int, state: str | None, lag: int | None, age: int | None) -> dict[str, Any]:
        return {
            "at_utc": f"2026-03-31T11:{minute:02d}:00Z",
            "state": state,
            "lag_records": lag,
            "watermark_age_seconds": age,
        }

    samples = [sample(51, None, None, None), sample(54, "GREEN", 0, 1), sample(57, "AMBER", 7_210, 2)]
    return {"kind": "ofp_health_history", "contract_version": "v0", "seconds": 180, "samples": samples}
