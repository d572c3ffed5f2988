"""The registry: each step on control, in the table and among the facts; four eyes, one bundle in force, and back again."""

from __future__ import annotations

from dataclasses import replace

import orjson
import psycopg
import pytest

from ofp_platform.bundles import bundle_registry
from ofp_platform.bundles.compatibility import LivePlane
from ofp_platform.bundles.lifecycle import BundleRefused
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.storage.bundle_events import bundle_in_force, bundle_path, list_bundle_events, load_bundle
from ofp_platform.storage.governance_facts import read_facts
from ofp_platform.vocabulary.loop.bundle import BUNDLE_EVENTS, BundleInForce, BundleRef, BundleScope, BundleStep, Slot
from ofp_platform.vocabulary.offline.governance_fact import BundleStepTaken, gist, subject
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.profile import BundlePolicy
from ofp_platform_tests.bundles.conftest import FRAUD_ACTIVE, FRAUD_SHADOW, START, Desk

FRAUD, ACTIVE, SHADOW = TrafficMode.FRAUD, Slot.ACTIVE, Slot.SHADOW


def in_force(desk: Desk, scope: BundleScope = FRAUD_ACTIVE, *, at_sequence: int | None = None) -> BundleInForce | None:
    with desk.plane.pool.connection() as connection:
        return bundle_in_force(connection, desk.plane.profile.context_pins, scope, at_sequence=at_sequence)


def ref_in_force(desk: Desk, scope: BundleScope = FRAUD_ACTIVE, *, at_sequence: int | None = None) -> BundleRef | None:
    force = in_force(desk, scope, at_sequence=at_sequence)
    return None if force is None else force.bundle


def facts_of(desk: Desk, bundle: BundleRef) -> list[BundleStepTaken]:
    facts = [recorded.fact for recorded in read_facts(desk.plane.pool, "bundle_step", about=bundle.digest[:9], limit=1000)]
    pins = desk.plane.profile.context_pins
    return [fact for fact in facts if isinstance(fact, BundleStepTaken) and fact.context_pins == pins]


def test_each_step_is_said_on_control_kept_and_told_as_a_fact(desk: Desk) -> None:
    bundle = desk.activated("velocity")
    outcome = desk.by("owner").activate(bundle.ref, FRAUD, ACTIVE, desk.live, "again")
    assert not outcome.is_new
    assert outcome.step.event.reason == "go"
    with desk.plane.pool.connection() as connection:
        steps = list_bundle_events(connection, desk.plane.profile.context_pins, 10)[::-1]
    events = [step.event for step in steps]
    assert [(event.sequence, event.step, event.actor) for event in events] == [
        (0, BundleStep.PUBLISHED, "maker"),
        (1, BundleStep.APPROVED, "checker"),
        (2, BundleStep.ACTIVATED, "owner"),
    ]
    assert events[2].scope == FRAUD_ACTIVE
    assert events[2].replaces is None
    assert load_bundle(desk.plane.objects, bundle.ref) == bundle
    log = desk.plane.control_log()
    batch = log.read("0000", None, 10)
    assert list(batch.event_types) == [BUNDLE_EVENTS[event.step] for event in events]
    assert list(batch.event_ids) == [event.message_id for event in events]
    run_id = desk.plane.profile.context_pins.run_id
    assert [orjson.loads(payload) for payload in batch.payloads] == [
        {**event.wire(), "scenario_run_id": run_id} for event in events
    ]
    assert list(batch.offsets) == [step.position.offset for step in steps]
    facts = facts_of(desk, bundle.ref)
    assert [fact.step for fact in facts] == ["ACTIVATED", "APPROVED", "PUBLISHED"]
    assert (subject(facts[0]), gist(facts[0])) == (bundle.ref.digest, "ACTIVATED  velocity  card-desk/fraud/active  owner: go")
    assert in_force(desk) == BundleInForce(bundle=bundle.ref, sequence=2, position=steps[2].position)


def test_nothing_of_a_step_is_there_when_any_part_of_it_fails(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = desk.bundle("velocity")
    desk.by("maker").publish(bundle, "made")

    def fail(*_: object) -> int:
        raise psycopg.OperationalError("gone")

    for name in ("append_facts_with", "append_bundle_event", "append_messages"):
        with monkeypatch.context() as patch:
            patch.setattr(bundle_registry, name, fail)
            with pytest.raises(Exception, match="gone"):
                desk.by("checker").approve(bundle.ref, "looked at")
        assert len(desk.plane.control_log().read("0000", None, 10).offsets) == 1
        with desk.plane.pool.connection() as connection:
            assert len(list_bundle_events(connection, desk.plane.profile.context_pins, 10)) == 1
    assert len(facts_of(desk, bundle.ref)) == 1
    assert desk.by("checker").approve(bundle.ref, "looked at").is_new


def test_a_bundle_is_published_once_object_first(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = desk.bundle("velocity")
    with monkeypatch.context() as patch:
        patch.setattr(bundle_registry, "append_bundle_event", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            desk.by("maker").publish(bundle, "made")
    assert desk.plane.objects.get(bundle_path(bundle.ref)) == bundle.stored()  # put, and known to nobody
    assert desk.by("maker").publish(bundle, "made").is_new
    assert not desk.by("maker").publish(bundle, "made").is_new
    with pytest.raises(BundleRefused, match=r"ALREADY_PUBLISHED: velocity/[0-9a-f]{12} was PUBLISHED by maker at 2027"):
        desk.by("other").publish(bundle, "made")


def test_four_eyes_unless_the_policy_says_otherwise(desk: Desk) -> None:
    bundle = desk.bundle("velocity")
    with pytest.raises(BundleRefused, match="NOT_PUBLISHED"):
        desk.by("checker").approve(bundle.ref, "x")
    desk.by("maker").publish(bundle, "made")
    for policy in (None, BundlePolicy()):
        with pytest.raises(BundleRefused, match=r"FOUR_EYES: .+ was published by maker: somebody else approves it"):
            desk.by("maker", bundles=policy).approve(bundle.ref, "x")
    with pytest.raises(BundleRefused, match=r"NOT_APPROVED: .+`ofp bundle approve` comes first"):
        desk.by("owner").activate(bundle.ref, FRAUD, ACTIVE, desk.live, "go")
    assert desk.by("maker", bundles=BundlePolicy(four_eyes=False)).approve(bundle.ref, "x").is_new
    assert not desk.by("maker", bundles=BundlePolicy(four_eyes=False)).approve(bundle.ref, "x").is_new
    with pytest.raises(BundleRefused, match="ALREADY_APPROVED"):
        desk.by("checker").approve(bundle.ref, "x")


def test_a_second_bundle_replaces_the_first_and_a_roll_back_goes_down_the_pile(desk: Desk) -> None:
    first, second, third = (desk.activated(name) for name in ("first", "second", "third"))
    owner = desk.by("owner")
    assert ref_in_force(desk) == third.ref
    with pytest.raises(BundleRefused, match=r"NOT_IN_FORCE: second/.+ is not in force in card-desk/fraud/active, third/.+ is"):
        owner.roll_back(second.ref, FRAUD, ACTIVE, desk.live, "bad")
    back = owner.roll_back(third.ref, FRAUD, ACTIVE, desk.live, "bad").step.event
    assert (back.bundle, back.replaces) == (second.ref, third.ref)
    assert not owner.roll_back(third.ref, FRAUD, ACTIVE, desk.live, "bad").is_new
    with pytest.raises(BundleRefused, match="NOT_IN_FORCE"):
        desk.by("other").roll_back(third.ref, FRAUD, ACTIVE, desk.live, "bad")
    assert ref_in_force(desk) == second.ref
    assert owner.roll_back(second.ref, FRAUD, ACTIVE, desk.live, "bad").step.event.bundle == first.ref
    with pytest.raises(BundleRefused, match="NOTHING_BEFORE: nothing was in force in card-desk/fraud/active before first"):
        owner.roll_back(first.ref, FRAUD, ACTIVE, desk.live, "bad")
    with pytest.raises(BundleRefused, match=r"ALREADY_IN_FORCE: first/.+ by owner"):
        owner.activate(first.ref, FRAUD, ACTIVE, desk.live, "go")
    last = in_force(desk)
    assert last is not None
    told = [ref_in_force(desk, at_sequence=sequence) for sequence in range(last.sequence + 1)]
    nothing: list[BundleRef | None] = [None, None]
    assert told == [*nothing, *[first.ref] * 3, *[second.ref] * 3, third.ref, second.ref, first.ref]


def test_roll_back_where_nothing_is_in_force(desk: Desk) -> None:
    with pytest.raises(BundleRefused, match="nothing is in force in card-desk/baseline/active"):
        desk.by("owner").roll_back(desk.bundle("x").ref, TrafficMode.BASELINE, ACTIVE, desk.live, "bad")


def test_what_is_in_force_in_the_shadow_slot_changes_nothing_in_the_active_one(desk: Desk) -> None:
    active = desk.activated("active")
    before = in_force(desk)
    first_shadow = desk.activated("shadow", FRAUD_SHADOW)
    second_shadow = desk.activated("shadow_too", FRAUD_SHADOW)
    assert in_force(desk) == before
    assert ref_in_force(desk, FRAUD_SHADOW) == second_shadow.ref
    desk.by("owner").roll_back(second_shadow.ref, FRAUD, SHADOW, desk.live, "bad")
    assert (in_force(desk), ref_in_force(desk, FRAUD_SHADOW)) == (before, first_shadow.ref)
    # the same bundle may be in both, and leaves one without leaving the other
    desk.by("owner").activate(active.ref, FRAUD, SHADOW, desk.live, "beside itself")
    desk.by("owner").roll_back(active.ref, FRAUD, SHADOW, desk.live, "bad")
    assert in_force(desk) == before


def test_a_retired_bundle_is_never_in_force_again(desk: Desk) -> None:
    first, second = desk.activated("first"), desk.activated("second")
    with pytest.raises(BundleRefused, match=r"IN_FORCE: second/.+ is in force in card-desk/fraud/active: activate another"):
        desk.by("owner").retire(second.ref, "old")
    with pytest.raises(BundleRefused, match="NOT_PUBLISHED"):
        desk.by("owner").retire(desk.bundle("unknown").ref, "old")
    assert desk.by("owner").retire(first.ref, "old").is_new
    assert not desk.by("owner").retire(first.ref, "old").is_new
    with pytest.raises(BundleRefused, match="ALREADY_RETIRED"):
        desk.by("other").retire(first.ref, "old")
    for slot in (ACTIVE, SHADOW):
        with pytest.raises(BundleRefused, match=r"RETIRED: first/.+ was retired by owner at .+ \(old\)"):
            desk.by("owner").activate(first.ref, FRAUD, slot, desk.live, "go")
    with pytest.raises(BundleRefused, match="RETIRED: first"):
        desk.by("owner").roll_back(second.ref, FRAUD, ACTIVE, desk.live, "bad")
    with pytest.raises(BundleRefused, match="RETIRED: first"):
        desk.by("second-checker").approve(first.ref, "x")
    assert ref_in_force(desk) == second.ref


def test_a_bundle_for_other_features_is_refused_and_nothing_changes(desk: Desk) -> None:
    first, second = desk.activated("first"), desk.activated("second")
    third = desk.approved("third")
    other = LivePlane(compile_pack(shipped_pack("handbook")), has_identity=False)
    for refused in (
        lambda: desk.by("owner").activate(third.ref, FRAUD, ACTIVE, other, "go"),
        lambda: desk.by("owner").roll_back(second.ref, FRAUD, ACTIVE, other, "bad"),
    ):
        with pytest.raises(BundleRefused, match=r"INCOMPATIBLE: (third|first)/.+made for card_payments revision 1"):
            refused()
    assert ref_in_force(desk) == second.ref
    assert first.ref != second.ref


def test_a_bundle_whose_object_is_gone_or_changed_is_refused(desk: Desk) -> None:
    bundle = desk.approved("velocity")
    folder = desk.plane.objects.folder
    assert folder is not None
    path = folder / bundle_path(bundle.ref)
    path.write_bytes(bundle.stored() + b" ")
    with pytest.raises(BundleRefused, match=r"INCOMPATIBLE: .+ has digest [0-9a-f]{64}, not .+: it was changed"):
        desk.by("owner").activate(bundle.ref, FRAUD, ACTIVE, desk.live, "go")
    path.unlink()
    with pytest.raises(BundleRefused, match=r"INCOMPATIBLE: .+ is not in file://.+: bring it back"):
        desk.by("owner").activate(bundle.ref, FRAUD, ACTIVE, desk.live, "go")
    assert in_force(desk) is None


def test_a_clock_that_goes_back_puts_no_step_before_the_one_that_it_follows(desk: Desk) -> None:
    first = desk.bundle("first")
    published = desk.by("maker").publish(first, "made").step.event
    slow = replace(desk.by("checker"), now=lambda: START - 7_000_000)
    assert slow.approve(first.ref, "looked at").step.event.at_utc == published.at_utc


def test_runs_do_not_share_a_history(desk: Desk) -> None:
    bundle = desk.activated("velocity")
    other_pins = desk.plane.profile.context_pins.model_copy(update={"run_id": "another"})
    other_run = desk.by("maker", context_pins=other_pins)
    outcome = other_run.publish(bundle, "here, too")
    assert outcome.is_new
    assert outcome.step.event.sequence == 0
    with desk.plane.pool.connection() as connection:
        assert bundle_in_force(connection, other_pins, FRAUD_ACTIVE) is None
