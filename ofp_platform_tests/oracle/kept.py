"""One of each thing that lists show, kept for a run as the plane itself keeps it: builds, a comparison, datasets, operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ofp_platform.api.build_examples import intent_example
from ofp_platform.api.overview_examples import manifest_example, pack_operations_example
from ofp_platform.log.governance_log import append_facts
from ofp_platform.offline.datasets.dataset_index import DatasetIndex
from ofp_platform.offline.parity.correction_store import store_corrections
from ofp_platform.offline.parity.parity_store import store_records
from ofp_platform.offline.requests.intent_file import Intent
from ofp_platform.offline.runs.run_ledger import RunLedger
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.offline.build_intent import INTENT, AsOfBasis, AsOfSpec
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, Refusal
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest, manifest_path
from ofp_platform.vocabulary.offline.governance_fact import PackOperation
from ofp_platform.vocabulary.offline.parity_record import (
    Correction,
    FeatureDifference,
    ParityOutcome,
    ParityResult,
    UncheckableReason,
)
from ofp_platform.vocabulary.serving import FeatureGroupRef

MATCH, MISMATCH, UNCHECKABLE = ParityOutcome
NOWHERE = "0" * 64
_GROUP = FeatureGroupRef(group_name="account_activity", group_version="v1")
_PLACE = {"key_type": "account", "key_id": "a1", "group_name": "account_activity", "group_version": "v1", "feature": "count_24h"}


@dataclass(frozen=True)
class Kept:
    """Names of what is kept."""

    comparison_id: str
    build: str
    dataset: DatasetManifest


def intent_of(pins: ContextPins, name: str) -> Intent:
    """A training set of a run."""
    return INTENT.validate_python({**intent_example(), "context_pins": pins.wire(), "dataset_name": name, "submitted_by": "ada"})


def parity_result(comparison_id: str, decision_id: str, snapshot: str, outcome: ParityOutcome, day: str | None) -> ParityResult:
    """One comparison of a decision of a day; None: its time is not readable."""
    difference = FeatureDifference(where="values", served=3, rebuilt=2, **_PLACE)  # type: ignore[arg-type]
    return ParityResult(
        comparison_id=comparison_id,
        decision_id=decision_id,
        online_snapshot_ref=snapshot,
        offline_snapshot_ref={MATCH: snapshot, MISMATCH: NOWHERE, UNCHECKABLE: None}[outcome],
        outcome=outcome,
        reason=UncheckableReason.PROVENANCE_INCOMPLETE if outcome is UNCHECKABLE else None,
        as_of=None if day is None else AsOfSpec(as_of_time_utc=f"{day}T10:00:00Z", as_of_basis=AsOfBasis.DECISION),
        feature_groups=None if day is None else (_GROUP,),
        differences=(difference,) if outcome is MISMATCH else (),
        detail="the served value is that of a window in which one event counts twice" if outcome is MISMATCH else None,
    )


def correction(comparison_id: str, decision_id: str, snapshot: str, day: str) -> Correction:
    """A late event that would have changed a decision of a day."""
    event = {"event_id": "late", "event_type": "card_payment", "event_time_utc": f"{day}T09:00:00Z"}
    return Correction.model_validate(
        {
            **_PLACE,
            "request_id": comparison_id,
            "decision_id": decision_id,
            "feature_snapshot_hash": snapshot,
            "as_of_time_utc": f"{day}T10:00:00Z",
            "served": 3,
            "corrected": 4,
            "events": [{**event, "partition_id": "0000", "offset": 7}],
        }
    )


def pack_step(pins: ContextPins, stream_name: str, **changes: Any) -> PackOperation:
    """A step of putting a pack live."""
    example = pack_operations_example()["steps"][0]
    return PackOperation.model_validate({**example, "context_pins": pins.wire(), "stream_name": stream_name, **changes})


def publish(pool: Pool, objects: ObjectStore, pins: ContextPins, name: str, *, recorded: bool = True) -> DatasetManifest:
    """A manifest in store and index; `recorded`: whether a build says that it published it."""
    intent = intent_of(pins, name)
    manifest = manifest_example(intent.model_dump(mode="json", exclude_none=True))
    objects.put_same(manifest_path(name, manifest.dataset_identity), manifest.encoded())
    DatasetIndex(pool, objects).add(manifest)
    if recorded:
        ledger = RunLedger(pool)
        with ledger.claim(ledger.submit(intent).run_key) as lease:
            assert lease is not None
            lease.record_receipt("size", {"records": 200_360, "rows": 151_200, "bytes": 181_440_000})
            lease.record_receipt("manifest", {"manifest_digest": manifest.digest, "dataset_identity": manifest.dataset_identity})
    return manifest


def keep_one_of_each(
    pool: Pool, objects: ObjectStore, pins: ContextPins, stream_name: str, decision_id: str, snapshot: str
) -> Kept:
    """Everything, some of it good and some bad: whoever looks must tell it apart."""
    comparison_id = sha256_hex(pins_digest(pins).encode())
    empty_comparison = sha256_hex(comparison_id.encode())
    others = [sha256_hex(f"snapshot {number}".encode()) for number in range(4)]
    results = [parity_result(comparison_id, decision_id, other, MATCH, f"2026-02-0{day}") for day, other in enumerate(others, 1)]
    results += [
        parity_result(comparison_id, decision_id, snapshot, MISMATCH, "2026-02-04"),
        parity_result(comparison_id, decision_id, NOWHERE, UNCHECKABLE, None),
        parity_result(empty_comparison, decision_id, snapshot, UNCHECKABLE, "2026-02-03"),
    ]
    store_records(pool, results)
    store_corrections(pool, [correction(comparison_id, decision_id, snapshot, "2026-02-04")])
    dataset = publish(pool, objects, pins, "fraud_by_payment")
    publish(pool, objects, pins, "without_a_build", recorded=False)
    damaged = publish(pool, objects, pins, "damaged")
    folder = objects.folder
    assert folder is not None  # of this machine
    (folder / manifest_path("damaged", damaged.dataset_identity)).write_bytes(b"{}")
    ledger = RunLedger(pool)
    failed = ledger.submit(intent_of(pins, "refused")).run_key
    with ledger.claim(failed) as lease:
        assert lease is not None
        lease.record_receipt("size", {"records": 9, "rows": 6, "bytes": 1_000})
        reason = BuildReason.LABEL_COVERAGE_BELOW_POLICY
        lease.fail(Refusal(reason=reason, field="label", message="0.421 of the mature rows are labelled, not 0.95"))
    ledger.submit(intent_of(pins, "waiting"))
    steps = [
        pack_step(pins, stream_name, step="begun", served_hash=None, basis=None, kept_until_utc=None, compared_keys=0),
        pack_step(pins, stream_name),
        pack_step(pins, stream_name, step="refused", refusal="1 of 1,000 keys differs", at_utc="2026-04-01T08:00:00Z"),
    ]
    append_facts(pool, steps)
    return Kept(comparison_id, failed, dataset)
