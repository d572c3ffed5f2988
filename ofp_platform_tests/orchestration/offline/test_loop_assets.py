"""The loop as assets: decisions made again and otherwise, actions, the audit log, cases, and sums that balance or do not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ofp_platform.audit.appending import append_records
from ofp_platform.audit.signing_keys import SigningKey
from ofp_platform.cases.triggering import Collection, collect
from ofp_platform.decisions.decider import Decider, DeciderPolicy
from ofp_platform.decisions.event_reader import EventReader
from ofp_platform.decisions.in_force import InForce
from ofp_platform.decisions.ready_bundles import ReadyBundles
from ofp_platform.log.governance_log import append_facts
from ofp_platform.online.plane import Plane
from ofp_platform.orchestration.offline import loop_assets
from ofp_platform.orchestration.offline.decision_assets import loop_decisions, loop_what_if
from ofp_platform.orchestration.offline.loop_assets import (
    CASES_COLLECTED,
    DECIDER_FOLLOWS,
    HEADS_FOLLOW,
    audit_heads,
    loop_actions,
    loop_cases,
    loop_reconciliation,
)
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.storage.bundle_events import append_bundle_event
from ofp_platform.storage.case_entries import OfferedEntry, append_entries
from ofp_platform.storage.decider_places import begin_places
from ofp_platform.vocabulary.identity import pins_digest
from ofp_platform.vocabulary.loop.bundle import BundleEvent, BundleStep, Slot
from ofp_platform.vocabulary.loop.case import CaseEvent, CaseTrigger, StatedEvidence, Triggered
from ofp_platform.vocabulary.loop.posture import Mode
from ofp_platform_tests.decisions.conftest import DECIDED_AT, make_bundle, publish
from ofp_platform_tests.decisions.test_decider import Held, posture
from ofp_platform_tests.oracle.simulated_log import append, profile, write_profile
from ofp_platform_tests.orchestration.offline.test_audit_schedule import FACT

LOOP = {
    "control_stream": "control",
    "decisions_stream": "decisions",
    "deciding": {"event_type": "card_payment"},
}
KEY = SigningKey.of_seed(b"k" * 32)
Look = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def plane(dsn: str, tmp_path: Path) -> Iterator[Plane]:
    with Plane.open(profile(tmp_path, **LOOP), dsn) as opened:
        append(opened.log)
        yield opened


@pytest.fixture
def look(plane: Plane, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    monkeypatch.setenv("OFP_DATABASE_URL", dsn)
    monkeypatch.setenv("OFP_PROFILE", str(write_profile(tmp_path, **LOOP)))
    monkeypatch.setenv("OFP_HOME", str(tmp_path))

    def run(asset: dg.AssetsDefinition, **config: Any) -> dg.ExecuteInProcessResult:
        run_config = {"ops": {asset.node_def.name: {"config": config}}} if config else None
        resources = {"plane": PlaneResource()}
        return dg.materialize([asset], resources=resources, run_config=run_config, raise_on_error=False)

    return run


def check_of(result: dg.ExecuteInProcessResult, name: str | None = None) -> dg.AssetCheckEvaluation:
    """The check of that name; without one, the first of the asset."""
    evaluations = [one for one in result.get_asset_check_evaluations() if name in (None, one.check_name)]
    return next(one for one in evaluations if name is not None or one.check_name != HEADS_FOLLOW)


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = [event for event in result.all_events if event.is_step_materialization]
    return {name: value.value for name, value in event.step_materialization_data.materialization.metadata.items()}


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    assert not result.success
    (event,) = [event for event in result.all_events if event.is_step_failure]
    assert event.step_failure_data.user_failure_data is not None
    return str(event.step_failure_data.user_failure_data.description)


def decide(plane: Plane, mode: Mode = Mode.HOLD) -> int:
    """Decide on all payments in a mode that asks for no vector; how many."""
    bundle = make_bundle("0" * 64)
    in_force = publish(plane.objects, bundle)
    published = BundleEvent(
        context_pins=plane.profile.context_pins,
        sequence=0,
        step=BundleStep.PUBLISHED,
        bundle=bundle.ref,
        actor="ada",
        reason="why",
        at_utc="2026-01-01T00:00:00Z",
    )
    with plane.pool.connection() as connection:
        append_bundle_event(connection, published, in_force.position)
    reader = EventReader(plane.log, plane.profile.context_pins, "card_payment", plane.profile.clock_skew_us)
    policy = DeciderPolicy(policy_rev=f"1.{'0' * 64}", fail_closed="decline", deadline_seconds=20.0)

    def ask(_request: object) -> Any:
        raise AssertionError("no vector is asked for in this mode")

    held = Held(InForce(posture(mode), ((Slot.ACTIVE, in_force),)))
    log = plane.decisions_log(create=True)
    load = ReadyBundles(plane.objects).load
    decider = Decider(plane.pool, log, reader, ask, held, load, policy, lambda: DECIDED_AT)
    return asyncio.run(decider.decide_available()).outcomes.total()


def now() -> int:
    return time.time_ns() // 1_000


def test_nothing_decided_is_no_success(look: Look) -> None:
    for asset, config in ((loop_decisions, {}), (loop_what_if, {"mode": "HOLD"})):
        assert "the plane has decided on nothing" in failure_of(look(asset, **config))
    assert "is decided on yet: `ofp decider run` decides" in failure_of(look(loop_reconciliation))
    empty_log = check_of(look(audit_heads))
    assert not empty_log.passed
    assert "there is no head" in str(empty_log.description)
    assert check_of(look(loop_actions)).description == "nothing was wanted"
    assert check_of(look(loop_cases)).description == "there is no case"


def test_a_decider_that_came_by_nothing_is_no_balance(plane: Plane, look: Look) -> None:
    with plane.pool.connection() as connection:
        begin_places(connection, plane.profile.context_pins, plane.log.ends())
    assert "is decided on yet: `ofp decider run` decides" in failure_of(look(loop_reconciliation))


def test_traffic_that_waits_while_no_decider_is_live_is_told(plane: Plane, look: Look) -> None:
    decide(plane)
    assert check_of(look(loop_reconciliation), DECIDER_FOLLOWS).passed  # nothing waits
    append(plane.log)
    waiting = check_of(look(loop_reconciliation), DECIDER_FOLLOWS)
    assert not waiting.passed
    assert "stand behind the decider's place, and no decider is live: `ofp decider run`" in str(waiting.description)
    with plane.pool.connection() as connection:
        connection.execute(
            "INSERT INTO ofp.decider_seat (pins_digest, decider_name, seen_at) VALUES (%s, 'decider', %s)",
            (pins_digest(plane.profile.context_pins), 1 << 60),
        )
    assert check_of(look(loop_reconciliation), DECIDER_FOLLOWS).passed


def test_decisions_are_made_again_and_a_changed_one_is_named(plane: Plane, look: Look) -> None:
    count = decide(plane)
    result = look(loop_decisions)
    assert check_of(result).passed
    assert metadata_of(result)["dagster/row_count"] == metadata_of(result)["equal"] == count > 100
    assert f"| active | velocity/{make_bundle('0' * 64).ref.digest[:12]} | review | {count} |" in metadata_of(result)["by_bundle"]
    with plane.pool.connection() as connection:
        row = connection.execute("SELECT min(decision_id) FROM ofp.decision_record").fetchone()
        assert row is not None
        connection.execute("ALTER TABLE ofp.decision_record DISABLE TRIGGER USER")
        connection.execute(
            "UPDATE ofp.decision_record SET content = replace(content, '\"review\"', '\"approve\"') WHERE decision_id = %s", row
        )
    changed = look(loop_decisions)
    assert not changed.success  # the check blocks
    assert not check_of(changed).passed
    assert f"{row[0]}: outcome: recorded approve, made again review" in str(check_of(changed).description)


def test_a_decision_that_the_log_does_not_reach_is_missed(plane: Plane, look: Look) -> None:
    decide(plane)
    with plane.pool.connection() as connection:
        connection.execute("ALTER TABLE ofp.decision_record DISABLE TRIGGER USER")
        connection.execute(
            "UPDATE ofp.decision_record SET record_offset = record_offset + 1000000"
            " WHERE decision_id = (SELECT min(decision_id) FROM ofp.decision_record)"
        )
    lost = check_of(look(loop_decisions))
    assert not lost.passed
    assert "1 of them stand on nothing that card-payments and its archive hold" in str(lost.description)


def test_what_another_mode_would_have_decided(plane: Plane, look: Look) -> None:
    count = decide(plane)
    held = look(loop_what_if, mode="FAIL_CLOSED")
    assert check_of(held).passed
    assert (metadata_of(held)["flips"], metadata_of(held)["same"]) == (count, 0)
    assert f"| POSTURE | {count} |" in metadata_of(held)["by_cause"]
    assert "say what is otherwise" in failure_of(look(loop_what_if, mode=""))
    assert "a bundle is named NAME/DIGEST" in failure_of(look(loop_what_if, bundle="velocity"))
    shown = metadata_of(held)
    assert "| review to decline |" not in shown["by_cause"]
    assert all("data:image/png" in shown[plot] for plot in ("changes", "causes", "causes_by_day"))
    gone = f"velocity/{'1' * 64}"
    assert "is not in" in failure_of(look(loop_what_if, bundle=gone))


def test_what_would_have_been_decided_on_other_vectors(plane: Plane, look: Look) -> None:
    count = decide(plane)
    for config in ({"as_known_now": True}, {"pack": "card_payments"}):
        result = look(loop_what_if, **config)
        assert (metadata_of(result)["same"], metadata_of(result)["flips"]) == (count, 0)  # none of them asked for a vector
        assert check_of(result).passed
    raised = look(loop_what_if, mode="NORMAL", as_known_now=True)
    assert check_of(raised).description == f"{count:,}: OTHER_GROUPS"
    assert "| OTHER_GROUPS |" in metadata_of(raised)["first_untold"]
    assert "causes" not in metadata_of(raised)
    assert "a pack is named by the digest of a published one" in failure_of(look(loop_what_if, pack="packs/mine.yaml"))
    assert f"no pack of digest {'1' * 64}" in failure_of(look(loop_what_if, pack="1" * 64))


def test_the_sums_balance_when_all_is_there_and_name_what_is_not(plane: Plane, look: Look) -> None:
    count = decide(plane)
    unproven = look(loop_reconciliation)
    assert not unproven.success  # the check blocks
    assert f"{count:,} decisions behind the newest head of the audit log" in str(check_of(unproven).description)
    append_records(plane.pool, plane.objects, KEY, now)
    log = look(audit_heads)
    assert (check_of(log).passed, metadata_of(log)["proven_leaves"]) == (True, metadata_of(log)["dagster/row_count"])
    balanced = look(loop_reconciliation)
    report, sums = metadata_of(balanced)["report"], metadata_of(balanced)["sums"]
    assert check_of(balanced).passed, check_of(balanced).description
    assert plane.objects.exists(report)
    assert f"| traffic {count:,} | decisions {count:,} | 0 |" in sums
    with plane.pool.connection() as connection:
        connection.execute("ALTER TABLE ofp.decision_record DISABLE TRIGGER USER")
        connection.execute("DELETE FROM ofp.decision_record WHERE ctid = (SELECT min(ctid) FROM ofp.decision_record)")
    less = check_of(look(loop_reconciliation))
    assert not less.passed
    assert "1 events without a decision: " in str(less.description)
    assert not check_of(look(audit_heads)).passed


def test_an_audit_log_that_nobody_appends_to_is_told(plane: Plane, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    decide(plane)
    without_head = check_of(look(audit_heads), HEADS_FOLLOW)
    assert (without_head.passed, without_head.blocking) == (False, False)
    assert "and there is no head: `ofp audit append`" in str(without_head.description)
    append_records(plane.pool, plane.objects, KEY, now)
    assert check_of(look(audit_heads), HEADS_FOLLOW).passed
    monkeypatch.setattr(loop_assets, "_MOST_HOURS", -1)
    assert check_of(look(audit_heads), HEADS_FOLLOW).passed  # however old, nothing waits
    append_facts(plane.pool, [FACT])
    assert "1 records wait for a head" in str(check_of(look(audit_heads), HEADS_FOLLOW).description)
    assert "hours old" in str(check_of(look(audit_heads), HEADS_FOLLOW).description)


def collecting_seconds(after_deciding: int) -> int:
    """The pause within which somebody collects, if the check looks so many seconds behind it at what was decided."""
    return time.time_ns() // 10**9 - DECIDED_AT // 10**6 - after_deciding


def test_cases_that_nobody_collects_are_told(plane: Plane, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_assets, "_COLLECTING_SECONDS", collecting_seconds(3_600))
    assert check_of(look(loop_cases), CASES_COLLECTED).passed  # nothing is decided
    count = decide(plane)  # in HOLD, all to review
    nobody = check_of(look(loop_cases), CASES_COLLECTED)
    assert (nobody.passed, nobody.blocking, count > 0) == (False, False, True)
    assert nobody.severity is dg.AssetCheckSeverity.WARN
    assert nobody.description == f"without a case: {count:,} decisions; `ofp case collect --every SECONDS` opens them"
    assert nobody.metadata["decisions_without_a_case"].value == count
    report = collect(plane.pool, Collection(plane.profile.context_pins, lambda event_type: event_type, now))
    assert report.triggers == count
    assert check_of(look(loop_cases), CASES_COLLECTED).passed


def test_what_was_just_decided_may_be_collected_yet(plane: Plane, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    decide(plane)
    monkeypatch.setattr(loop_assets, "_COLLECTING_SECONDS", collecting_seconds(-3_600))
    assert check_of(look(loop_cases), CASES_COLLECTED).passed


def test_cases_are_counted_and_a_contradiction_is_told(plane: Plane, look: Look) -> None:
    def offer(trigger: str) -> None:
        event = CaseEvent(event_class="card_payment", event_id="e-1")
        content = Triggered(trigger=CaseTrigger.MANUAL_ASSERTION, evidence=StatedEvidence(reason=trigger))
        entry = OfferedEntry(event, "ref-1", now(), "ada", content)
        with plane.pool.connection() as connection, connection.transaction():
            append_entries(connection, plane.profile.context_pins, [entry])

    offer("first")
    first = look(loop_cases)
    assert (check_of(first).passed, metadata_of(first)["open"], metadata_of(first)["conflicts"]) == (True, 1, 0)
    offer("other")
    other = check_of(look(loop_cases))
    assert (other.passed, other.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert other.description == "1 entries came again with other content"
    with plane.pool.connection() as connection:
        connection.execute("UPDATE ofp.case_standing SET state = 'CLOSED'")
    strayed = check_of(look(loop_cases))
    assert not strayed.passed
    assert "1 cases stand elsewhere than their entries say, first " in str(strayed.description)
