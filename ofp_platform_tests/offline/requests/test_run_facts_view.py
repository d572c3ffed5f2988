"""Run facts: published once, read by explicit reference, and only with every PASS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ofp_platform.log.port import PositionTrimmed
from ofp_platform.offline.requests.run_facts_view import RunFactsConflict, examine_run, load_run_facts, publish_run_facts
from ofp_platform.online.plane import Plane
from ofp_platform.vocabulary.offline.build_plan import PinnedPack
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.run_facts import REQUIRED_CHECKS, RunFacts
from ofp_platform_tests.oracle.simulated_log import profile

REFERENCE = "sr/run-1/facts-1"


@pytest.fixture
def plane(dsn: str, tmp_path: Path) -> Iterator[Plane]:
    with Plane.open(profile(tmp_path), dsn) as opened:
        opened.ensure_live()
        yield opened


def pinned(plane: Plane) -> PinnedPack:
    pack = plane.registry_of(plane.ensure_live())
    return PinnedPack(pack_id=pack.pack.pack_id, revision=pack.pack.revision, digest=pack.digest)


def facts_of(plane: Plane, reference: str = REFERENCE, **changes: Any) -> RunFacts:
    facts = examine_run(plane.pool, plane.log, plane.profile, pinned(plane), reference)
    return RunFacts.model_validate({**facts.wire(), **changes})


def load(plane: Plane, reference: str = REFERENCE, **changes: Any) -> RunFacts:
    asked = {"context_pins": plane.profile.context_pins, "stream_name": plane.profile.stream_name, **changes}
    return load_run_facts(plane.pool, reference, **asked)


def refusal(plane: Plane, *arguments: Any, **changes: Any) -> tuple[BuildReason, str]:
    with pytest.raises(BuildRefused) as caught:
        load(plane, *arguments, **changes)
    return caught.value.reason, caught.value.field


def test_published_facts_are_read_as_they_were(plane: Plane) -> None:
    facts = facts_of(plane)
    assert [item.check for item in facts.evidence] == list(REQUIRED_CHECKS)
    assert publish_run_facts(plane.pool, facts) == publish_run_facts(plane.pool, facts) == facts.digest
    assert load(plane) == facts
    assert (facts.clock_skew_us, facts.allowed_lateness_us) == (300_000_000, 86_400_000_000)
    assert facts.run_config_digest == plane.profile.run_config_digest


def test_a_reference_never_names_other_facts(plane: Plane) -> None:
    facts = facts_of(plane)
    publish_run_facts(plane.pool, facts)
    with pytest.raises(RunFactsConflict, match=REFERENCE):
        publish_run_facts(plane.pool, facts_of(plane, clock_skew_us=1))
    assert load(plane) == facts


def test_unknown_or_of_another_run(plane: Plane) -> None:
    publish_run_facts(plane.pool, facts_of(plane))
    assert refusal(plane, "sr/run-1/facts-2") == (BuildReason.RUN_FACTS_UNAVAILABLE, "run_facts_ref")
    other = plane.profile.context_pins.model_copy(update={"seed": 1})
    assert refusal(plane, context_pins=other) == (BuildReason.RUN_FACTS_UNAVAILABLE, "context_pins")
    assert refusal(plane, stream_name="other") == (BuildReason.RUN_FACTS_UNAVAILABLE, "stream_name")


@pytest.mark.parametrize("check", REQUIRED_CHECKS)
@pytest.mark.parametrize("how", ["failed", "absent"])
def test_no_pass_no_read(plane: Plane, check: str, how: str) -> None:
    evidence = [item for item in facts_of(plane).wire()["evidence"] if how == "failed" or item["check"] != check]
    for item in evidence:
        if item["check"] == check:
            item["status"] = "FAIL"
    publish_run_facts(plane.pool, facts_of(plane, evidence=evidence))
    with pytest.raises(BuildRefused, match=check) as caught:
        load(plane)
    assert (caught.value.reason, caught.value.field) == (BuildReason.PASS_EVIDENCE_MISSING, "run_facts_ref")


def test_a_pack_that_nobody_published_does_not_pass(plane: Plane) -> None:
    wrong = pinned(plane).model_copy(update={"digest": "0" * 64})
    facts = examine_run(plane.pool, plane.log, plane.profile, wrong, REFERENCE)
    assert facts.without_pass() == ["feature_pack_published"]


def test_facts_that_were_tampered_with_are_not_read(plane: Plane) -> None:
    facts = facts_of(plane)
    with plane.pool.connection() as connection:
        connection.execute(
            "INSERT INTO ofp.run_facts VALUES (%s, %s, %s), (%s, %s, %s)",
            ("sr/a", "0" * 64, facts.model_dump_json(), "sr/b", facts.digest, "{}"),
        )
    assert refusal(plane, "sr/a") == (BuildReason.RUN_FACTS_UNAVAILABLE, "run_facts_ref")
    assert refusal(plane, "sr/b") == (BuildReason.RUN_FACTS_UNAVAILABLE, "run_facts_ref")


def test_a_config_that_the_live_projection_does_not_have_does_not_pass(plane: Plane) -> None:
    other = plane.profile.model_copy(update={"allowed_lateness": "2d"})
    assert other.run_config_digest != plane.profile.run_config_digest
    facts = examine_run(plane.pool, plane.log, other, pinned(plane), REFERENCE)
    assert facts.without_pass() == ["run_config_pinned"]


def test_a_stream_that_cannot_be_read_does_not_pass(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    def trimmed(*_: Any) -> None:
        raise PositionTrimmed("gone")

    monkeypatch.setattr(plane.log, "read", trimmed)
    facts = examine_run(plane.pool, plane.log, plane.profile, pinned(plane), REFERENCE)
    assert facts.without_pass() == ["stream_readable"]


def test_evidence_is_resolved_and_says_what_the_facts_say(plane: Plane) -> None:
    evidence = facts_of(plane).wire()["evidence"]
    first, second, _ = (item["evidence_digest"] for item in evidence)
    for number, (digest, words) in enumerate((("0" * 64, "is not stored"), (second, "says something else"))):
        evidence[0]["evidence_digest"] = digest
        reference = f"sr/unresolved-{number}"
        publish_run_facts(plane.pool, facts_of(plane, reference, evidence=evidence))
        with pytest.raises(BuildRefused, match=words) as caught:
            load(plane, reference)
        assert (caught.value.reason, caught.value.field) == (BuildReason.EVIDENCE_UNRESOLVED, "run_facts_ref")
    evidence[0]["evidence_digest"] = first
    publish_run_facts(plane.pool, facts_of(plane, evidence=evidence))
    assert load(plane).evidence[0].evidence_digest == first


def test_evidence_names_each_check_once(plane: Plane) -> None:
    evidence = facts_of(plane).wire()["evidence"]
    for wrong in (evidence[::-1], [evidence[0], evidence[0]]):
        with pytest.raises(ValidationError, match="in the order of their names"):
            facts_of(plane, evidence=wrong)
