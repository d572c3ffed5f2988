"""`control/bundles` shows what is in force, and says where nothing is or an object is gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from ofp_platform.online.plane import Plane
from ofp_platform.orchestration.offline.bundle_assets import control_bundles
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.storage.bundle_events import append_bundle_event, bundle_path
from ofp_platform.vocabulary.loop.bundle import Bundle, BundleEvent, BundleScope, BundleStep, Slot
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.position import Position
from ofp_platform_tests.decisions.conftest import make_bundle, publish
from ofp_platform_tests.oracle.simulated_log import append, profile, write_profile
from ofp_platform_tests.storage.test_bundle_events import bundle_of


@pytest.fixture
def look(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dg.ExecuteInProcessResult]:
    monkeypatch.setenv("OFP_DATABASE_URL", dsn)
    monkeypatch.setenv("OFP_PROFILE", str(write_profile(tmp_path)))
    monkeypatch.setenv("OFP_HOME", str(tmp_path))
    with Plane.open(profile(tmp_path), dsn) as plane:
        append(plane.log)

    def run() -> dg.ExecuteInProcessResult:
        return dg.materialize([control_bundles], resources={"plane": PlaneResource()})

    return run


def check_of(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def put_in_force(dsn: str, folder: Path, bundle: Bundle) -> None:
    with Plane.open(profile(folder), dsn) as plane, plane.pool.connection() as connection:
        plane.objects.put_if_absent(bundle_path(bundle.ref), bundle.stored())
        event = BundleEvent(
            context_pins=plane.profile.context_pins,
            sequence=0,
            step=BundleStep.ACTIVATED,
            bundle=bundle.ref,
            scope=BundleScope(environment="cards", mode=TrafficMode.FRAUD, slot=Slot.ACTIVE),
            actor="who",
            reason="why",
            at_utc="2026-01-01T00:00:00Z",
        )
        append_bundle_event(connection, event, Position(stream_name="control", partition_id="0000", offset=0))


def test_what_is_in_force_is_shown(look: Callable[[], dg.ExecuteInProcessResult], dsn: str, tmp_path: Path) -> None:
    nothing = check_of(look())
    assert (nothing.passed, nothing.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert nothing.description == "nothing is in force, so there is nothing to look at"
    bundle = bundle_of()
    put_in_force(dsn, tmp_path, bundle)
    result = look()
    assert check_of(result).passed
    (materialization,) = result.asset_materializations_for_node("control__bundles")
    assert f"| cards/fraud/active | {bundle_path(bundle.ref)} | 0 | none |" in str(materialization.metadata["in_force"].value)
    with Plane.open(profile(tmp_path), dsn) as plane:
        assert plane.objects.folder is not None
        (plane.objects.folder / bundle_path(bundle.ref)).unlink()
    gone = check_of(look())
    assert (gone.passed, gone.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "is not in" in str(gone.description)


def test_a_model_that_is_gone_or_changed_is_told(look: Callable[[], dg.ExecuteInProcessResult], dsn: str, tmp_path: Path) -> None:
    bundle = make_bundle("0" * 64)
    assert bundle.model is not None
    put_in_force(dsn, tmp_path, bundle)
    gone = check_of(look())
    assert (gone.passed, gone.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert f"the model {bundle.model.path} is not in" in str(gone.description)
    with Plane.open(profile(tmp_path), dsn) as plane:
        plane.objects.put_if_absent(bundle.model.path, b"{}")
        assert f"not {bundle.model.digest}: it was changed" in str(check_of(look()).description)
        assert plane.objects.folder is not None
        (plane.objects.folder / bundle.model.path).unlink()
        publish(plane.objects, bundle)
    assert check_of(look()).passed
