"""Decisions of the plane as assets: each made again from its record, and what another bundle or mode would have decided."""

from collections import Counter
from collections.abc import Iterator

import dagster as dg

from ofp_platform.decisions.decided_span import DecidedRun, DecisionsUnread, PastDecision
from ofp_platform.decisions.ready_bundles import ReadyBundles
from ofp_platform.decisions.redeciding import ReplayTally, redecide
from ofp_platform.decisions.what_if import Alternative, WhatIf
from ofp_platform.online.plane import Plane
from ofp_platform.orchestration.log.event_assets import OWNERS
from ofp_platform.orchestration.offline.build_plots import counts_by_name
from ofp_platform.orchestration.offline.bundle_assets import CONTROL_BUNDLES
from ofp_platform.orchestration.online.projection_assets import PROJECTION
from ofp_platform.orchestration.receipt_metadata import Metadata, markdown_table
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.storage.bundle_events import BundleDamaged
from ofp_platform.vocabulary.loop.bundle import bundle_named
from ofp_platform.vocabulary.loop.posture import Mode

DECISIONS = dg.AssetKey(["loop", "decisions"])
WHAT_IF = dg.AssetKey(["loop", "what_if"])
SAME_BYTES, ALL_TOLD = "same_bytes", "all_told"
_MOST_SHOWN = 20


class WhatIfConfig(dg.Config):
    """What is otherwise: a published bundle, NAME/DIGEST, a mode, or both."""

    bundle: str = ""
    mode: str = ""


@dg.asset(
    key=DECISIONS,
    deps=[CONTROL_BUNDLES, dg.AssetDep(PROJECTION, partition_mapping=dg.AllPartitionMapping())],
    description="The plane's own decisions of the run, each made again from its event, vector, bundle and mode. `ofp decider run`"
    " makes them.",
    group_name="loop",
    kinds={"postgres"},
    owners=OWNERS,
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(
            SAME_BYTES, asset=DECISIONS, blocking=True, description="Each decision, made again, is the same to the last byte."
        )
    ],
)
def loop_decisions(plane: dg.ResourceParam[PlaneResource]) -> Iterator[dg.MaterializeResult[object]]:
    """Make them again, and count them."""
    tally = ReplayTally()
    outcomes: Counter[tuple[str, str, str]] = Counter()
    lowered: Counter[str] = Counter()
    problems: list[str] = []
    with plane.open("auditor") as opened_plane:
        load = ReadyBundles(opened_plane.objects).load
        try:
            for page in _decided_run(opened_plane).pages():
                redecide(page, load, tally)
                outcomes.update(_circumstance(decision) for decision in page)
                lowered.update(decision.content["posture"].get("lowering", "as in force") for decision in page)
        except DecisionsUnread as unread:
            problems.append(str(unread))
    if not tally.decisions and not problems:
        raise dg.Failure("the plane has decided on nothing in the run of the profile: `ofp decider run`", allow_retries=False)
    problems += [f"{difference.decision_id}: {difference.words}" for difference in tally.differences[:_MOST_SHOWN]]
    by_outcome: Counter[str] = Counter()
    for (slot, _, outcome), count in outcomes.items():
        by_outcome[f"{outcome} ({slot})"] += count
    rows = [(*circumstance, count) for circumstance, count in sorted(outcomes.items())]
    metadata: Metadata = {
        "dagster/row_count": tally.decisions,
        "equal": tally.equal,
        "by_bundle": markdown_table(["slot", "bundle", "outcome", "decisions"], rows),
        "by_lowering": markdown_table(["mode", "decisions"], sorted(lowered.items())),
        "outcomes": counts_by_name(by_outcome, "decisions", "decisions by outcome"),
    }
    check = dg.AssetCheckResult(
        check_name=SAME_BYTES,
        passed=tally.equal == tally.decisions and not problems,
        description="\n".join(problems) or None,
        metadata={"decisions": tally.decisions, "differing": len(tally.differences)},
    )
    yield dg.MaterializeResult(metadata=metadata, check_results=[check])


@dg.asset(
    key=WHAT_IF,
    deps=[DECISIONS],
    description="Which decisions another bundle or mode would have flipped, on the vectors that were served, and which part of it"
    " flips each. Nothing is written or done.",
    group_name="loop",
    kinds={"postgres"},
    owners=OWNERS,
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(ALL_TOLD, asset=WHAT_IF, description="Of each decision it can be told what it would have been.")
    ],
)
def loop_what_if(config: WhatIfConfig, plane: dg.ResourceParam[PlaneResource]) -> Iterator[dg.MaterializeResult[object]]:
    """Decide otherwise."""
    with plane.open("auditor") as opened_plane:
        load = ReadyBundles(opened_plane.objects).load
        try:
            ref, mode = bundle_named(config.bundle) if config.bundle else None, Mode(config.mode) if config.mode else None
            if ref is None and mode is None:
                raise ValueError("say what is otherwise: a bundle, a mode, or both")
            trial = WhatIf(Alternative(None if ref is None else load(ref), mode), load)
            for page in _decided_run(opened_plane).pages():
                trial.look_at(page)
        except (ValueError, BundleDamaged, DecisionsUnread) as error:
            raise dg.Failure(str(error), allow_retries=False) from None
    tally = trial.tally
    looked_at = tally.same + len(tally.flips) + tally.untold.total()
    if not looked_at:
        raise dg.Failure("the plane has decided on nothing in the run of the profile: `ofp decider run`", allow_retries=False)
    changes = {f"{before} to {after}": count for (before, after), count in tally.by_change.items()}
    rows = [
        (flip.event_id, f"{flip.before} to {flip.after}", ", ".join(flip.causes), flip.score_before, flip.score_after)
        for flip in tally.flips[:_MOST_SHOWN]
    ]
    metadata: Metadata = {
        "dagster/row_count": looked_at,
        "same": tally.same,
        "flips": len(tally.flips),
        "by_cause": markdown_table(["cause", "flips"], sorted(tally.by_cause.items())),
        "first_flips": markdown_table(["event", "change", "causes", "score before", "score after"], rows),
    }
    if changes:
        metadata["changes"] = counts_by_name(changes, "decisions", "flips by change")
    untold = [f"{count:,}: {reason}" for reason, count in sorted(tally.untold.items())]
    check = dg.AssetCheckResult(
        check_name=ALL_TOLD, passed=not untold, severity=dg.AssetCheckSeverity.WARN, description="\n".join(untold) or None
    )
    yield dg.MaterializeResult(metadata=metadata, check_results=[check])


def _decided_run(plane: Plane) -> DecidedRun:
    profile = plane.profile
    return DecidedRun(plane.pool, plane.objects, plane.archived_log, profile.context_pins, profile.clock_skew_us)


def _circumstance(decision: PastDecision) -> tuple[str, str, str]:
    """Slot, bundle and outcome of a decision."""
    content = decision.content
    bundle = content.get("bundle")
    name = "none" if bundle is None else f"{bundle['bundle']['bundle_name']}/{bundle['bundle']['digest'][:12]}"
    return content["slot"], name, content["outcome"]


decisions_job = dg.define_asset_job(
    "replay_decisions", dg.AssetSelection.assets(DECISIONS), description="Make the plane's own decisions again, bit for bit."
)
what_if_job = dg.define_asset_job(
    "what_if", dg.AssetSelection.assets(WHAT_IF), description="Show which decisions another bundle or mode would have flipped."
)
