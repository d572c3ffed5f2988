"""The policy's bounds on parity: how many recorded decisions are compared at least, and how many may be uncheckable."""

from __future__ import annotations

from ofp_platform.vocabulary.offline.build_intent import DatasetBuild
from ofp_platform.vocabulary.offline.build_plan import BuildPlan, BuildPolicy, at_most
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.dataset_manifest import ParityReceipt


def demand_anchors(plan: BuildPlan) -> None:
    """Refuse a dataset build that would compare fewer decisions than its policy asks for; comparing none is not parity.

    Raises:
        BuildRefused: PARITY_BELOW_POLICY.
    """
    if isinstance(plan.intent, DatasetBuild):
        _demand(plan.policy, len(plan.parity_anchors))


def _demand(policy: BuildPolicy, anchors: int) -> None:
    if anchors < policy.min_parity_anchors:
        raise BuildRefused(
            BuildReason.PARITY_BELOW_POLICY,
            f"{anchors} recorded decisions inside the replay are compared, and {_named(policy)} asks for at least"
            f" {policy.min_parity_anchors}: record decisions, let parity_anchors be all_decisions_in_replay, and let the replay"
            " reach them; or build under a policy that asks for none",
            "parity_anchors",
        )


def check_parity(policy: BuildPolicy, parity: ParityReceipt) -> None:
    """The gate of a build: what was compared, against the bounds of its policy.

    Raises:
        BuildRefused: PARITY_MISMATCH, PARITY_BELOW_POLICY.
    """
    if parity.mismatch and policy.require_parity:
        raise BuildRefused(
            BuildReason.PARITY_MISMATCH,
            f"{parity.mismatch} of {parity.anchors} recorded decisions are not what the log gives: no dataset is made of"
            " it. `ofp parity show` has the evidence",
            "parity_anchors",
        )
    _demand(policy, parity.anchors)
    if not at_most(parity.uncheckable, parity.anchors, policy.max_uncheckable_share):
        raise BuildRefused(
            BuildReason.PARITY_BELOW_POLICY,
            f"{parity.uncheckable} of {parity.anchors} recorded decisions could not be compared, and {_named(policy)} allows a"
            f" share of {policy.max_uncheckable_share}. `ofp parity show` has the reason of each",
            "parity_anchors",
        )


def _named(policy: BuildPolicy) -> str:
    return f"policy {policy.policy_id} revision {policy.revision}"
