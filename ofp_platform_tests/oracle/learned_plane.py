"""A plane with a published training set, a registry of bundles and a policy of retraining: what challengers are tried on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ofp_platform.bundles.bundle_file import bundle_source, make_bundle, read_bundle_file
from ofp_platform.bundles.bundle_registry import BundleRegistry
from ofp_platform.bundles.compatibility import LivePlane
from ofp_platform.bundles.trained_model import load_trained_model
from ofp_platform.learning.payments import train_on
from ofp_platform.learning.protocol import Protocol
from ofp_platform.learning.training import TrainedModel
from ofp_platform.offline.datasets.publication import load_manifest
from ofp_platform.offline.labels.label_store import LabelStore, as_observed
from ofp_platform.offline.runs.builder import build
from ofp_platform.online.plane import profile_pack
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.vocabulary.loop.bundle import Bundle, Slot
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.retraining_policy import EstimatorName, RetrainingPolicy
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.oracle.intents import changed
from ofp_platform_tests.oracle.labelled_plane import GROUPS, LabelledPlane

RETRAINING: dict[str, Any] = {
    "bundle": "card_payments",
    "estimator": "logistic_regression",
    "trees": 5,
    "min_test_rows": 10,
    "min_test_frauds": 1,
    "at_least": {"auc_roc": "0.000000"},
    "behind_active_at_most": {"auc_roc": "1.000000"},
}
"""A gate that is easily passed."""
LEARNING = {"control_stream": "control", "retraining": RETRAINING}
"""Settings of the profile."""
HOLDOUT = date(2026, 1, 13)
"""The first of the seven days of test that the training set has."""


def policy(**changes: Any) -> RetrainingPolicy:
    """The policy, changed."""
    return RetrainingPolicy.model_validate(changed(RETRAINING, **changes))


@dataclass
class LearnedPlane:
    """See the module."""

    world: LabelledPlane
    manifest: DatasetManifest
    run_key: str

    @classmethod
    def prepare(cls, dsn: str, folder: Path) -> LearnedPlane:
        """A dataset in which every fifth payment is a fraud. The caller closes `world.plane`."""
        world = LabelledPlane.prepare(dsn, folder, **LEARNING)
        manifest, run_key = published(world, "every_fifth", lambda number: int(number % 5 == 0))
        return cls(world, manifest, run_key)

    @property
    def registry(self) -> CompiledRegistry:
        return compile_pack(profile_pack(self.world.plane.profile))

    def by(self, actor: str) -> BundleRegistry:
        """The registry of bundles as one actor has it."""
        plane = self.world.plane
        now = lambda: time.time_ns() // 1_000  # noqa: E731
        return BundleRegistry(plane.pool, plane.objects, plane.control_log(create=True), plane.profile, actor, now)

    def trained(self, estimator: EstimatorName, protocol: Protocol) -> TrainedModel:
        report = train_on(self.world.objects, self.manifest, protocol, trees=50, estimators=(estimator,))
        return report.models[0]

    def activate(self, model: TrainedModel | None) -> Bundle:
        """Put the shipped rules in force for fraud, with a model or without."""
        path = bundle_source("card_payments")
        trained = None if model is None else load_trained_model(self.world.objects, model.path, model.report_path)
        bundle = make_bundle(path, read_bundle_file(path), self.registry, trained)
        self.by("maker").publish(bundle, "made")
        self.by("checker").approve(bundle.ref, "read")
        live = LivePlane(self.registry, has_identity=False)
        self.by("checker").activate(bundle.ref, TrafficMode.FRAUD, Slot.ACTIVE, live, "go")
        return bundle


def published(world: LabelledPlane, label_type: str, value_of: Any) -> tuple[DatasetManifest, str]:
    """A published dataset of all payments whose labels are `value_of` their number, and the key of its run."""
    times = {
        batch.event_ids[index]: int(batch.ts[index])
        for batch in world.batches()
        for index, event_type in enumerate(batch.event_types)
        if event_type == "card_payment"
    }
    assertions = (
        LabelAssertion(
            event_class="card_payment",
            event_id=event_id,
            label_type=label_type,
            value=value_of(number),
            effective_time_utc=format_time(ts),
            observed_time_utc=format_time(ts + 60_000_000),
            source="bank",
        )
        for number, (event_id, ts) in enumerate(sorted(times.items()))
    )
    LabelStore(world.plane.pool, world.plane.profile.context_pins).append(assertions, as_observed)
    label = {"label_type": label_type, "as_of_utc": "2026-01-20T12:00:00Z", "maturity_seconds": 3600}
    groups = [*GROUPS, {"group_name": "card_activity", "group_version": "v1"}]
    intent = world.intent(f"of_{label_type}", label=label, feature_groups=groups)
    run_key = world.build_context.ledger.submit(intent).run_key
    run = build(world.build_context, run_key)
    assert run.outcome is not None, run.refusal
    return load_manifest(world.objects, run.outcome["dataset_name"], run.outcome["dataset_identity"]), run_key
