"""A build's parity gate: every recorded decision that its plan names is compared with its rebuild, and the record stored."""

from __future__ import annotations

from pathlib import Path

from ofp_platform.offline.parity.forensic_rebuild import RunPolicies
from ofp_platform.offline.parity.parity import ParityRuns
from ofp_platform.offline.replay.known_events import FoldedReplay
from ofp_platform.offline.runs.build_bounds import BuildGuard
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.runs.run_parity import compare_and_store, context_of, replayed_packs
from ofp_platform.vocabulary.offline.build_plan import BuildPlan
from ofp_platform.vocabulary.offline.dataset_manifest import ParityReceipt
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis


def compare_anchors(
    build_context: BuildContext, plan: BuildPlan, folder: Path, folded_replay: FoldedReplay | None, guard: BuildGuard
) -> ParityReceipt:
    """Compare the plan's decisions and append the records to ofp.parity_record.

    `folded_replay` is the plan's replay under the plan's pack, where there is one. A decision's knowledge begins with the
    first record, so a replay that begins later is folded again from there, in `folder`, as is that of any other pack.

    Raises:
        what the guard raises.
        BuildRefused: the replay cannot be read, or a store does not answer; PARITY_MISMATCH: the same comparison had another
            outcome before.
    """
    policies = RunPolicies(plan.run_config_digest, plan.clock_skew_us, plan.allowed_lateness_us)
    basis = ReplayBasis.up_to(plan.replay_basis.end)
    folded_under_plan = folded_replay if basis == plan.replay_basis else None
    runs = replayed_packs(
        build_context, plan.context_pins, policies, basis, plan.parity_anchors, folder, folded_under_plan, guard
    )
    context = context_of(build_context, runs, plan.context_pins, plan.clock_skew_us)
    parity = ParityRuns(plan.stream_name, plan.context_pins, runs, context)
    counts = compare_and_store(build_context, parity, plan.parity_anchors, plan.request_id, lambda _record: guard.check())
    return ParityReceipt(
        anchors=counts.total(),
        match=counts["MATCH"],
        mismatch=counts["MISMATCH"],
        uncheckable=counts["UNCHECKABLE"],
    )
