"""Build policies declared beside a pack: what is wrong with a file, and which content a reference means."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofp_platform.offline.requests.policies import FILE_NAME, SHIPPED_ALONE, BuildPolicies, policies_of
from ofp_platform.registry.pack_text import PackErrors
from ofp_platform.tables.proposal_text import policies_text
from ofp_platform.vocabulary.offline.build_intent import PolicyRef
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.profile import Profile
from ofp_platform_tests.oracle.simulated_log import profile as profile_in

GOOD = """\
policies:
  - policy_id: strict
    revision: 2
    min_label_coverage: "0.9"
    min_parity_anchors: 10
  - policy_id: strict
    revision: 1
    min_label_coverage: "0.5"
"""


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    return profile_in(tmp_path, pack=str(tmp_path / "pack.yaml"))


def declared(profile: Profile, text: str) -> BuildPolicies:
    Path(profile.pack).with_name(FILE_NAME).write_text(text, encoding="utf-8")
    return policies_of(profile)


def refused(policies: BuildPolicies, **ref: object) -> tuple[str | None, str]:
    with pytest.raises(BuildRefused) as caught:
        policies.resolve(PolicyRef.model_validate({"revision": 2, **ref}))
    assert caught.value.reason is BuildReason.POLICY_UNRESOLVED
    return caught.value.field, str(caught.value)


def test_a_policy_of_ones_own_is_named_with_its_content(profile: Profile) -> None:
    assert policies_of(profile) == SHIPPED_ALONE
    policies = declared(profile, GOOD)
    reference = policies.reference("strict")
    policy = policies.resolve(reference)
    assert (reference.revision, reference.digest, policy.min_parity_anchors) == (2, policy.digest, 10)
    assert policies.resolve(policies.reference("strict", 1)).min_label_coverage == "0.5"
    field, words = refused(policies, policy_id="strict")
    assert (field, policy.digest in words) == ("policy.digest", True)
    # the same revision with another content is not the one that a request of before means
    changed = declared(profile, GOOD.replace('"0.9"', '"0.8"'))
    field, words = refused(changed, policy_id="strict", digest=policy.digest)
    assert (field, "it was changed since the request was written" in words) == ("policy.digest", True)
    assert refused(changed, policy_id="strict", revision=3)[0] == "policy.revision"
    field, words = refused(changed, policy_id="strickt")
    assert (field, FILE_NAME in words, "analysis, fraud_training, strict" in words) == ("policy.policy_id", True, True)


def test_a_shipped_policy_needs_no_digest_and_takes_no_wrong_one(profile: Profile) -> None:
    policies = declared(profile, GOOD)
    reference = policies.reference("fraud_training")
    assert reference.digest is None
    assert policies.resolve(reference) == SHIPPED_ALONE.resolve(reference)
    assert refused(policies, policy_id="fraud_training", revision=1, digest="0" * 64)[0] == "policy.digest"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            GOOD.replace("min_parity_anchors", "min_parity_anchor"),
            ":5: policies[0].min_parity_anchor: there is no such field; did you mean 'min_parity_anchors'?",
        ),
        (GOOD.replace("policies:", "policys:"), ":1: policys: there is no such field; did you mean 'policies'?"),
        (GOOD.replace('"0.9"', "0.9"), ":4: policies[0].min_label_coverage: "),
        (GOOD.replace("    revision: 2\n", ""), ":2: policies[0].revision: this field is required"),
        (
            GOOD.replace("min_parity_anchors: 10", "min_parity_anchors: 0"),
            ":2: policies[0]: require_parity without a least number",
        ),
        (GOOD.replace("revision: 2", "revision: 1"), ":7: policies[1].revision: this revision of the policy is declared twice"),
        (GOOD.replace("strict", "analysis"), ":2: policies[0].policy_id: a policy of this id ships with the package"),
        ("policies: [", ":1: not YAML"),
        ("policies: 4", ":1: policies: "),
        (GOOD.replace("policy_id: strict", "policy_id: &a strict", 1) + "  - *a\n", ": aliases are not used"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_by_line_and_field(profile: Profile, text: str, says: str) -> None:
    with pytest.raises(PackErrors) as caught:
        declared(profile, text)
    assert f"{FILE_NAME}{says}" in str(caught.value) or says in str(caught.value)
    assert all(error.file.endswith(FILE_NAME) for error in caught.value.errors)


def test_the_example_is_a_comment_and_holds_when_it_is_none(profile: Profile) -> None:
    text = policies_text("bookings")
    assert declared(profile, text) == SHIPPED_ALONE
    plain = "\n".join(line.removeprefix("# ") for line in text.split("#\n", 1)[1].splitlines())
    policy = declared(profile, plain).declared["bookings_training", 1]
    assert policy.weaknesses_for_training() == []
    assert (policy.min_parity_anchors, policy.immature_rows) == (100, "drop")
