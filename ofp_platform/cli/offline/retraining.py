"""Retraining: a challenger is trained, reported on, and published where it passed the gate. Nothing is put in force by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.vocabulary.loop.bundle import BundleScope, Slot
from ofp_platform.vocabulary.offline.run_facts import TrafficMode

if TYPE_CHECKING:
    from ofp_platform.learning.challenger import Challenger, NoActiveModel
    from ofp_platform.online.plane import Plane
    from ofp_platform.vocabulary.loop.bundle import Bundle, BundleRef
    from ofp_platform.vocabulary.loop.challenger_report import ChallengerReport, GateRule
    from ofp_platform.vocabulary.loop.exact_model import ExactModel
    from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
    from ofp_platform.vocabulary.retraining_policy import RetrainingPolicy


@dataclass(frozen=True)
class Retrained:
    """The report on a challenger, where it is stored, and whether the challenger was published now."""

    report: ChallengerReport
    report_path: str
    is_new: bool


def retrain(plane: Plane, manifest: DatasetManifest, actor: str, now: Callable[[], int]) -> Retrained:
    """Train on a dataset as the profile says, hold the challenger against the bundle in force for fraud, write the report, and
    publish the challenger's bundle if every rule passed. `now`: microseconds.

    Raises:
        CommandRefused: the profile says nothing of retraining. NoControlStream: it has no registry of bundles.
        DatasetDamaged | ObjectStoreUnavailable | LogUnavailable | psycopg.Error: see there; call again.
    """
    from ofp_platform.learning.challenger import train_challenger
    from ofp_platform.vocabulary.loop.challenger_report import ChallengerReport

    policy = plane.profile.retraining
    if policy is None:
        raise CommandRefused("the profile declares no `retraining`: without the thresholds of a gate nothing is trained again")
    control = plane.control_log(create=True)
    scope = BundleScope(environment=plane.profile.profile_name, mode=TrafficMode.FRAUD, slot=Slot.ACTIVE)
    in_force, active = _active(plane, scope)
    challenger = train_challenger(plane.objects, manifest, policy, active)
    trained_model, rules = challenger.trained_model, challenger.rules
    bundle = None
    if all(rule.passed for rule in rules):
        bundle, problem = _bundle(plane, policy, challenger)
        rules = (*rules, _bundle_rule(bundle, problem))
    report = ChallengerReport(
        dataset_name=manifest.dataset_name,
        dataset_identity=manifest.dataset_identity,
        manifest_digest=manifest.digest,
        policy=policy,
        scope=scope,
        in_force=in_force,
        test_rows=challenger.test_rows,
        test_frauds=challenger.test_frauds,
        model_digest=None if trained_model is None else trained_model.report.model_digest,
        eval_report=None if trained_model is None else trained_model.report.digest,
        challenger=None if bundle is None else bundle.ref,
        rules=rules,
    )
    path = f"learning/challengers/{manifest.dataset_identity}/{report.digest}.json"
    plane.objects.put_same(path, report.stored())
    is_new = False
    if bundle is not None and report.has_passed and not _is_published(plane, bundle.ref):
        from ofp_platform.bundles.bundle_registry import BundleRegistry

        registry = BundleRegistry(plane.pool, plane.objects, control, plane.profile, actor, now)
        is_new = registry.publish(bundle, f"challenger that passed the gate: {path}").is_new
    return Retrained(report, path, is_new)


def _active(plane: Plane, scope: BundleScope) -> tuple[BundleRef | None, ExactModel | NoActiveModel]:
    """The bundle in force, and its model; where there is none, why."""
    from ofp_platform.learning.challenger import NoActiveModel
    from ofp_platform.storage.bundle_events import BundleDamaged, bundle_in_force, load_bundle, load_bundle_model

    with plane.pool.connection() as connection:
        in_force = bundle_in_force(connection, plane.profile.context_pins, scope)
    if in_force is None:
        return None, NoActiveModel(f"no bundle is in force in {scope.key}")
    try:
        bundle = load_bundle(plane.objects, in_force.bundle)
        if bundle.model is None:
            return in_force.bundle, NoActiveModel(f"bundle {bundle.bundle_name}/{in_force.bundle.digest[:12]} has no model")
        return in_force.bundle, load_bundle_model(plane.objects, bundle.model)
    except BundleDamaged as error:
        return in_force.bundle, NoActiveModel(str(error))


def _bundle(plane: Plane, policy: RetrainingPolicy, challenger: Challenger) -> tuple[Bundle | None, str]:
    """The bundle of a challenger; None with what is against it."""
    from ofp_platform.bundles.bundle_file import (
        SHIPPED_BUNDLES,
        BundleFileError,
        bundle_source,
        make_bundle,
        read_bundle_file,
    )
    from ofp_platform.bundles.trained_model import ModelRefused, load_trained_model
    from ofp_platform.online.plane import profile_pack
    from ofp_platform.registry.compile import compile_pack

    assert challenger.trained_model is not None  # every rule passed
    folder = Path(plane.profile.pack).parent
    path = bundle_source(policy.bundle if policy.bundle in SHIPPED_BUNDLES else str(folder / Path(policy.bundle).expanduser()))
    try:
        trained_model = load_trained_model(plane.objects, challenger.trained_model.path, challenger.trained_model.report_path)
        return make_bundle(path, read_bundle_file(path), compile_pack(profile_pack(plane.profile)), trained_model), ""
    except (BundleFileError, ModelRefused) as error:
        return None, str(error)


def _bundle_rule(bundle: Bundle | None, problem: str) -> GateRule:
    from ofp_platform.vocabulary.loop.challenger_report import GateRule

    seen = problem if bundle is None else f"{bundle.bundle_name}/{bundle.ref.digest}"
    return GateRule(rule="bundle", asked="a bundle of the file and the model", seen=seen, passed=bundle is not None)


def _is_published(plane: Plane, bundle: BundleRef) -> bool:
    from ofp_platform.storage.bundle_events import find_bundles

    with plane.pool.connection() as connection:
        return bundle in find_bundles(connection, plane.profile.context_pins, bundle.bundle_name, bundle.digest)
