"""Resolving intents on a plane with simulated payments: what a plan pins, and every refusal with its field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from ofp_platform.api.contract_files import contract_schemas
from ofp_platform.offline.requests.intent_file import parse_intent
from ofp_platform.offline.requests.parity_policy import check_parity, demand_anchors
from ofp_platform.offline.requests.policies import shipped_policies
from ofp_platform.offline.requests.resolver import BuildSources, resolve
from ofp_platform.offline.requests.run_facts_view import publish_run_facts
from ofp_platform.online.plane import Plane
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.offline.build_intent import request_id
from ofp_platform.vocabulary.offline.build_plan import BuildPlan, BuildPolicy
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.dataset_manifest import ParityReceipt
from ofp_platform.vocabulary.offline.run_facts import CheckStatus, RunFacts
from ofp_platform.vocabulary.position import Basis, make_basis
from ofp_platform.vocabulary.times import format_time, parse_time
from ofp_platform_tests.oracle.intents import DATASET, FORENSIC, PARITY, changed
from ofp_platform_tests.oracle.resolvable_plane import ResolvablePlane
from ofp_platform_tests.oracle.simulated_log import heads, profile

RELEASE = "ofp-platform-test"
PAGE = 100_000


@pytest.fixture
def resolvable(dsn: str, tmp_path: Path) -> Iterator[ResolvablePlane]:
    with Plane.open(profile(tmp_path), dsn) as plane:
        yield ResolvablePlane.prepare(plane)


@pytest.fixture
def undecided(dsn: str, tmp_path: Path) -> Iterator[ResolvablePlane]:
    with Plane.open(profile(tmp_path), dsn) as plane:
        yield ResolvablePlane.prepare(plane, decided=False)


def plan(resolvable: ResolvablePlane, data: dict[str, Any]) -> BuildPlan:
    return resolve(parse_intent(data), resolvable.sources, RELEASE)


def refused(resolvable: ResolvablePlane, data: dict[str, Any]) -> tuple[BuildReason, str]:
    with pytest.raises(BuildRefused) as caught:
        plan(resolvable, data)
    assert caught.value.message
    return caught.value.reason, caught.value.field


def spans(resolvable: ResolvablePlane, **bounds: tuple[int, int]) -> dict[str, Any]:
    """A selector of offsets; partitions as p0000=(start, next)."""
    partitions = [
        {"partition_id": name[1:], "offset_kind": "exclusive_next", "start": start, "next": following}
        for name, (start, following) in sorted(bounds.items())
    ]
    return {"select": "offsets", "basis": {"stream_name": "card-payments", "partitions": partitions}}


def up_to(resolvable: ResolvablePlane, **offsets: int) -> Basis:
    ends = resolvable.plane.log.ends().by_partition()
    return make_basis("card-payments", {name: ends[name].model_copy(update={"offset": at}) for name, at in offsets.items()})


def test_a_plan_names_the_policy_in_force_and_means_the_same_under_another(resolvable: ResolvablePlane) -> None:
    plans = [
        resolve(parse_intent(DATASET), replace(resolvable.sources, policy_rev=rev), RELEASE)
        for rev in (None, f"1.{'a' * 64}", f"2.{'b' * 64}")
    ]
    assert [plan.wire().get("policy_rev") for plan in plans] == [None, f"1.{'a' * 64}", f"2.{'b' * 64}"]
    assert len({plan.dataset_identity for plan in plans}) == 1


def test_a_plan_pins_everything(resolvable: ResolvablePlane) -> None:
    plane = resolvable.plane
    found = plan(resolvable, DATASET)
    assert found.request_id == request_id(parse_intent(DATASET))
    assert found.replay_selected_by is not None
    for span in found.replay_basis.partitions:
        admitted = plane.log.read(span.partition_id, None, PAGE).admitted_at.tolist()
        first, until = parse_time("2026-01-01T00:00:00Z"), parse_time("2026-01-04T00:00:00Z")
        assert span.start == next(number for number, time in enumerate(admitted) if time >= first)
        assert span.next == max(number + 1 for number, time in enumerate(admitted) if time < until)
    assert found.cut_over == tuple(span.first for span in found.replay_basis.partitions)
    assert found.feature_pack is not None
    assert (found.feature_pack.pack_id, found.feature_pack.revision) == ("card_payments", 1)
    assert found.label_basis is not None
    assert found.label_basis.as_of_utc == "2026-01-02T18:00:00Z"
    assert (found.run_config_digest, found.clock_skew_us) == (plane.profile.run_config_digest, plane.profile.clock_skew_us)
    assert found.allowed_lateness_us == plane.profile.allowed_lateness_us
    assert found.policy == shipped_policies()["fraud_training", 1]
    assert found.ofs_code_release_id == RELEASE
    assert plan(resolvable, DATASET) == found
    assert BuildPlan.model_validate(found.wire()) == found
    Draft202012Validator(contract_schemas()["ofs_build_plan_v0.schema.json"]).validate(found.wire())


def test_the_identity_is_of_what_gives_the_data_meaning(resolvable: ResolvablePlane) -> None:
    found = plan(resolvable, DATASET)
    offsets = {"select": "offsets", "basis": found.replay_basis.model_dump(mode="json")}
    by_offsets = plan(resolvable, changed(DATASET, replay=offsets, note="the same by offsets"))
    assert by_offsets.replay_selected_by is None
    assert by_offsets.dataset_identity == found.dataset_identity
    for change in (
        {"as_of_basis": "event_time"},
        {"label": {**DATASET["label"], "as_of_utc": "2026-01-02T12:00:00Z"}},
        {"feature_groups": [{"group_name": "card_activity", "group_version": "v1"}]},
        {"purpose": "analysis"},
    ):
        assert plan(resolvable, changed(DATASET, **change)).dataset_identity != found.dataset_identity
    analysis = changed(DATASET, purpose="analysis")
    lenient = changed(analysis, policy={"policy_id": "analysis", "revision": 1})
    assert plan(resolvable, analysis).dataset_identity != plan(resolvable, lenient).dataset_identity
    groups = [{"group_name": name, "group_version": "v1"} for name in ("card_activity", "account_activity")]
    one, other = changed(DATASET, feature_groups=groups), changed(DATASET, feature_groups=groups[::-1])
    assert plan(resolvable, one).dataset_identity == plan(resolvable, other).dataset_identity


def test_no_pass_no_read(resolvable: ResolvablePlane, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = resolvable.sources
    with resolvable.plane.pool.connection() as connection:
        row = connection.execute("SELECT content FROM ofp.run_facts").fetchone()
    assert row is not None
    facts = RunFacts.model_validate_json(row[0])
    failed = tuple(item.model_copy(update={"status": CheckStatus.FAIL}) for item in facts.evidence)
    for reference, evidence in [("facts/failed", failed), ("facts/silent", ())]:
        publish_run_facts(resolvable.plane.pool, facts.model_copy(update={"reference": reference, "evidence": evidence}))

    def read(*_: object) -> None:
        raise AssertionError("nothing of the run is read without its PASS")

    monkeypatch.setattr(type(sources.stream_records.log), "read", read)
    monkeypatch.setattr(type(sources.stream_records.log), "ends", read)
    missing = (BuildReason.PASS_EVIDENCE_MISSING, "run_facts_ref")
    assert refused(resolvable, changed(DATASET, run_facts_ref="facts/failed")) == missing
    assert refused(resolvable, changed(DATASET, run_facts_ref="facts/silent")) == missing
    unavailable = BuildReason.RUN_FACTS_UNAVAILABLE
    assert refused(resolvable, changed(DATASET, run_facts_ref="facts/latest")) == (unavailable, "run_facts_ref")
    pins = {**DATASET["context_pins"], "run_id": "run-2"}
    assert refused(resolvable, changed(DATASET, context_pins=pins)) == (unavailable, "context_pins")


UNRESOLVED: list[tuple[dict[str, Any], BuildReason, str]] = [
    ({"stream_name": "another"}, BuildReason.BASIS_UNRESOLVED, "stream_name"),
    ({"policy": {"policy_id": "none", "revision": 1}}, BuildReason.POLICY_UNRESOLVED, "policy.policy_id"),
    ({"policy": {"policy_id": "analysis", "revision": 9}}, BuildReason.POLICY_UNRESOLVED, "policy.revision"),
    ({"policy": {"policy_id": "analysis", "revision": 1}}, BuildReason.POLICY_TOO_WEAK, "policy"),
    (
        {"feature_pack": {"pack_id": "card_payments", "revision": 9}},
        BuildReason.FEATURE_PROFILE_UNRESOLVED,
        "feature_pack.revision",
    ),
    (
        {"feature_pack": {"pack_id": "card_payments", "revision": 1, "digest": "0" * 64}},
        BuildReason.FEATURE_PROFILE_UNRESOLVED,
        "feature_pack.digest",
    ),
    (
        {"feature_groups": [*DATASET["feature_groups"], {"group_name": "account_activity", "group_version": "v9"}]},
        BuildReason.FEATURE_PROFILE_UNRESOLVED,
        "feature_groups.1",
    ),
    (
        {"scope": {"kind": "per_event", "event_types": ["card_payment", "wire"]}},
        BuildReason.FEATURE_PROFILE_UNRESOLVED,
        "scope.event_types.1",
    ),
    (
        {"scope": {"kind": "per_event", "event_types": ["card_payment"], "payload_fields": ["amount_minor", "colour"]}},
        BuildReason.FEATURE_PROFILE_UNRESOLVED,
        "scope.payload_fields.1",
    ),
    (
        {
            "scope": {"kind": "per_event", "event_types": ["fraud_report"]},
            "feature_groups": [{"group_name": "customer_activity", "group_version": "v1"}],
        },
        BuildReason.FEATURE_PROFILE_UNRESOLVED,
        "feature_groups.0",
    ),
    (
        {"replay": {"select": "admission_times", "from_utc": "2027-01-01T00:00:00Z", "to_utc": "2027-01-04T00:00:00Z"}},
        BuildReason.BASIS_UNRESOLVED,
        "replay",
    ),
    (
        {"label": {**DATASET["label"], "as_of_utc": "2027-01-01T00:00:00Z"}},
        BuildReason.LABEL_ASOF_IN_FUTURE,
        "label.as_of_utc",
    ),
    ({"supersedes": "0" * 64}, BuildReason.SUPERSEDED_UNRESOLVED, "supersedes"),
]


@pytest.mark.parametrize(("changes", "reason", "field"), UNRESOLVED, ids=lambda part: str(part)[:60])
def test_what_does_not_resolve(resolvable: ResolvablePlane, changes: dict[str, Any], reason: BuildReason, field: str) -> None:
    assert refused(resolvable, changed(DATASET, **changes)) == (reason, field)


def test_the_rule_of_labels_is_pinned(resolvable: ResolvablePlane) -> None:
    usual = plan(resolvable, DATASET)
    latest = plan(resolvable, changed(DATASET, label={**DATASET["label"], "rule": "latest_observed"}))
    by_class = {**DATASET["label"], "rule": "precedence", "source_classes": {"desk": "human"}}
    precedence = plan(resolvable, changed(DATASET, label=by_class))
    assert latest.dataset_identity == usual.dataset_identity != precedence.dataset_identity
    assert precedence.label_basis is not None
    assert precedence.label_basis.rule == "source_class_then_greatest_observed_time_then_assertion_id"
    assert precedence.label_basis.source_classes == {"desk": "human"}


def test_a_label_is_known_up_to_the_end_of_the_data(resolvable: ResolvablePlane) -> None:
    replay = spans(resolvable, p0000=(0, 100), p0001=(0, 50))
    ends = [resolvable.plane.log.read(name, None, PAGE).admitted_at[count - 1] for name, count in (("0000", 100), ("0001", 50))]
    last = max(ends)

    def at(micros: int) -> dict[str, Any]:
        return changed(DATASET, replay=replay, label={**DATASET["label"], "as_of_utc": format_time(micros)})

    assert plan(resolvable, at(int(last))).label_basis is not None
    assert refused(resolvable, at(int(last) + 1)) == (BuildReason.LABEL_ASOF_IN_FUTURE, "label.as_of_utc")


def test_a_training_set_without_anchors_is_refused(undecided: ResolvablePlane) -> None:
    def demanded(data: dict[str, Any]) -> tuple[BuildReason, str]:
        with pytest.raises(BuildRefused) as caught:
            demand_anchors(plan(undecided, data))
        return caught.value.reason, caught.value.field

    below = (BuildReason.PARITY_BELOW_POLICY, "parity_anchors")
    assert demanded(DATASET) == below
    analysis = {"purpose": "analysis", "policy": {"policy_id": "analysis", "revision": 1}}
    demand_anchors(plan(undecided, {**DATASET, **analysis}))
    decided = undecided.decide(3, up_to(undecided, **{"0000": 4}))
    assert plan(undecided, DATASET).parity_anchors == (decided,)
    demand_anchors(plan(undecided, DATASET))
    assert demanded({**DATASET, "parity_anchors": "none"}) == below


@pytest.mark.parametrize(("uncheckable", "is_refused"), [(0, False), (10, False), (11, True), (100, True)])
def test_the_share_of_uncheckable_decisions_is_compared_exactly(uncheckable: int, is_refused: bool) -> None:
    policy = shipped_policies()["fraud_training", 1].model_copy(update={"max_uncheckable_share": "0.1"})
    parity = ParityReceipt(anchors=100, match=100 - uncheckable, mismatch=0, uncheckable=uncheckable)
    if not is_refused:
        check_parity(policy, parity)
        return
    with pytest.raises(BuildRefused) as caught:
        check_parity(policy, parity)
    assert caught.value.reason is BuildReason.PARITY_BELOW_POLICY


def test_no_policy_is_met_by_comparing_nothing() -> None:
    assert BuildPolicy(policy_id="p", revision=1, min_label_coverage="0.0").min_parity_anchors == 1
    with pytest.raises(ValidationError, match="met by comparing nothing"):
        BuildPolicy(policy_id="p", revision=1, min_label_coverage="0.0", min_parity_anchors=0)


def test_what_is_superseded_exists_and_is_another(resolvable: ResolvablePlane) -> None:
    resolvable.published.add((DATASET["dataset_name"], "0" * 64))
    replaced = plan(resolvable, changed(DATASET, supersedes="0" * 64))
    identity = plan(resolvable, DATASET).dataset_identity
    assert replaced.dataset_identity == identity
    resolvable.published.add((DATASET["dataset_name"], identity))
    itself = changed(DATASET, supersedes=identity)
    assert refused(resolvable, itself) == (BuildReason.SUPERSEDED_UNRESOLVED, "supersedes")


def test_anchors_are_the_decisions_whose_basis_lies_inside(undecided: ResolvablePlane) -> None:
    resolvable = undecided
    other = resolvable.plane.profile.context_pins.model_copy(update={"run_id": "run-2"})
    inside = [resolvable.decide(number, up_to(resolvable, **{"0000": number + 1, "0001": 5})) for number in (3, 9)]
    ahead = resolvable.decide(4, up_to(resolvable, **{"0000": 30}))
    elsewhere = resolvable.decide(25, up_to(resolvable, **{"0000": 26}))
    foreign = resolvable.decide(5, up_to(resolvable, **{"0000": 6}), pins=other)
    replay = spans(resolvable, p0000=(0, 20), p0001=(0, 20))
    dataset = changed(DATASET, replay=replay, purpose="analysis")
    del dataset["label"]
    assert plan(resolvable, dataset).parity_anchors == tuple(sorted(inside))
    assert plan(resolvable, {**dataset, "parity_anchors": "none"}).parity_anchors == ()
    parity = changed(PARITY, replay=replay, decision_ids=None)
    assert plan(resolvable, parity).parity_anchors == tuple(sorted(inside))
    assert plan(resolvable, {**parity, "decision_ids": inside[:1]}).parity_anchors == (inside[0],)
    for wrong in (ahead, elsewhere, foreign, "f" * 64):
        named = {**parity, "decision_ids": [inside[0], wrong]}
        assert refused(resolvable, named) == (BuildReason.PARITY_ANCHOR_UNRESOLVED, "decision_ids.1")
    nobody = changed(PARITY, replay=spans(resolvable, p0000=(15, 20), p0001=(15, 20)), decision_ids=None)
    assert refused(resolvable, nobody) == (BuildReason.NOTHING_TO_BUILD, "replay")


def test_a_forensic_rebuild(resolvable: ResolvablePlane) -> None:
    asked = {
        **changed(FORENSIC, run_config_digest=resolvable.plane.profile.run_config_digest),
        "basis": up_to(resolvable, **{"0000": 10, "0001": 4}).model_dump(mode="json"),
    }
    found = plan(resolvable, asked)
    assert [(span.start, span.next) for span in found.replay_basis.partitions] == [(0, 10), (0, 4)]
    assert (found.scope, found.as_of_basis, found.label_basis) == (None, None, None)
    head = heads(resolvable.plane)["0000"]
    ahead = up_to(resolvable, **{"0000": head + 1}).model_dump(mode="json")
    key = {"key_type": "card", "key_id": "card-1"}
    amount = {"group_name": "account_amount", "group_version": "v1"}
    for change, reason, field in [
        ({"run_config_digest": "0" * 64}, BuildReason.FEATURE_PROFILE_UNRESOLVED, "run_config_digest"),
        ({"basis": ahead}, BuildReason.BASIS_UNRESOLVED, "basis.partitions.0.offset"),
        (
            {"feature_groups": [{"group_name": "none", "group_version": "v1"}]},
            BuildReason.FEATURE_PROFILE_UNRESOLVED,
            "feature_groups",
        ),
        ({"feature_keys": [key]}, BuildReason.INVALID_INTENT, "feature_keys"),
        ({"feature_keys": [*FORENSIC["feature_keys"], *FORENSIC["feature_keys"]]}, BuildReason.INVALID_INTENT, "feature_keys"),
        ({"feature_groups": [*FORENSIC["feature_groups"], amount]}, BuildReason.INVALID_INTENT, "request_context"),
    ]:
        assert refused(resolvable, {**asked, **change}) == (reason, field)


def test_a_store_that_does_not_answer_may_pass(resolvable: ResolvablePlane, monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        def connection(self) -> None:
            raise psycopg.OperationalError("gone")

    sources = resolvable.sources
    away = BuildSources(Away(), sources.stream_records, sources.is_published, sources.next_label_sequence)  # type: ignore[arg-type]
    with pytest.raises(BuildRefused) as caught:
        resolve(parse_intent(DATASET), away, RELEASE)
    assert caught.value.retryable


def test_a_published_policy_never_changes() -> None:
    digests = {key: digest_of(policy.model_dump(mode="json")) for key, policy in shipped_policies().items()}
    assert digests == {
        ("analysis", 1): "6e231a3c92b9b92e40f653ab54597485473645aedec66c8e64b5ee69ad3d8093",
        ("fraud_training", 1): "0a6540c27f7c00bd11eb282b164ad5cd9dd9c2ef6f68183e057bcfd46f07ca45",
    }
