"""The build policies that ship with the package. A revision never changes: its content is part of every dataset's identity."""

from __future__ import annotations

from functools import cache
from importlib import resources

from ruamel.yaml import YAML

from ofp_platform.vocabulary.offline.build_intent import PolicyRef
from ofp_platform.vocabulary.offline.build_plan import BuildPolicy
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused


@cache
def shipped_policies() -> dict[tuple[str, int], BuildPolicy]:
    """(policy_id, revision) to policy, in order. Treat as read-only."""
    folder = resources.files("ofp_platform.offline.requests").joinpath("policy_files")
    files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    policies = [BuildPolicy.model_validate(YAML(typ="safe").load(file.read_text(encoding="utf-8"))) for file in files]
    return {
        (policy.policy_id, policy.revision): policy
        for policy in sorted(policies, key=lambda policy: (policy.policy_id, policy.revision))
    }


def resolve_policy(ref: PolicyRef) -> BuildPolicy:
    """The policy of that id and revision.

    Raises:
        BuildRefused: POLICY_UNRESOLVED.
    """
    policies = shipped_policies()
    policy = policies.get((ref.policy_id, ref.revision))
    if policy is not None:
        return policy
    revisions = [str(revision) for policy_id, revision in policies if policy_id == ref.policy_id]
    if revisions:
        text = f"this policy has revision {', '.join(revisions)}, not the one asked for"
        raise BuildRefused(BuildReason.POLICY_UNRESOLVED, text, "policy.revision")
    policy_ids = ", ".join(sorted({policy_id for policy_id, _ in policies}))
    raise BuildRefused(BuildReason.POLICY_UNRESOLVED, f"there is no such policy; there are {policy_ids}", "policy.policy_id")
