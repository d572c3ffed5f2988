"""Decisions of the plane as assets: each made again from its record, and what another bundle or mode would have decided."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from ofp_platform.cli.offline.other_vectors import other_registry, other_vectors
from ofp_platform.cli.online.decided_run import decided_run, replay
from ofp_platform.decisions.decided_span import DecisionsUnread
from ofp_platform.decisions.ready_bundles import ReadyBundles
from ofp_platform.decisions.redeciding import RecordedAs, ReplayTally
from ofp_platform.decisions.what_if import Alternative, WhatIf, WhatIfTally
from ofp_platform.online.plane import Plane
from ofp_platform.orchestration.log.group_assets import group_asset
from ofp_platform.orchestration.offline.build_plots import counts_by_name, flips_by_day
from ofp_platform.orchestration.offline.bundle_assets import CONTROL_BUNDLES
from ofp_platform.orchestration.online.projection_assets import PROJECTION
from ofp_platform.orchestration.receipt_metadata import Metadata, markdown_table
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.registry.pack_text import PackErrors
from ofp_platform.storage.bundle_events import BundleDamaged
from ofp_platform.vocabulary.loop.bundle import bundle_named
from ofp_platform.vocabulary.loop.posture import Mode
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused

DECISIONS = dg.AssetKey(["loop", "decisions"])
WHAT_IF = dg.AssetKey(["loop", "what_if"])
SAME_BYTES, ALL_TOLD = "same_bytes", "all_told"
LOOP = "loop"
"""The group."""
_MOST_SHOWN = 20


class WhatIfConfig(dg.Config):
    """What is otherwise: a published bundle, NAME/DIGEST; a mode; a pack, by the digest of a published one or the name of a
    shipped one; all that is known now; or several of these."""

    bundle: str = ""
    mode: str = ""
    pack: str = ""
    as_known_now: bool = False


@group_asset(
    LOOP,
    DECISIONS,
    deps=[CONTROL_BUNDLES, dg.AssetDep(PROJECTION, partition_mapping=dg.AllPartitionMapping())],
    description="The plane's own decisions of the run, each made again from its event, vector, bundle and mode. `ofp decider run`"
    " makes them.",
    check_specs=[
        dg.AssetCheckSpec(
            SAME_BYTES, asset=DECISIONS, blocking=True, description="Each decision, made again, is the same to the last byte."
        )
    ],
)
def loop_decisions(plane: dg.ResourceParam[PlaneResource]) -> Iterator[dg.MaterializeResult[object]]:
    """Make them again, and count them."""
    tally = ReplayTally()
    problems: list[str] = []
    with plane.open("auditor") as opened_plane:
        try:
            for _ in replay(opened_plane, decided_run(opened_plane).parts(), tally):
                pass
        except DecisionsUnread as unread:
            problems.append(str(unread))
    if not tally.decisions and not problems:
        raise dg.Failure("the plane has decided on nothing in the run of the profile: `ofp decider run`", allow_retries=False)
    problems += [f"{difference.decision_id}: {difference.words}" for difference in tally.differences[:_MOST_SHOWN]]
    outcomes: Counter[tuple[str, str, str]] = Counter()
    lowered: Counter[str] = Counter()
    by_outcome: Counter[str] = Counter()
    for recorded, count in tally.recorded.items():
        outcomes[recorded.slot, _bundle_words(recorded), recorded.outcome] += count
        lowered[recorded.lowering or "as in force"] += count
        by_outcome[f"{recorded.outcome} ({recorded.slot})"] += count
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


@group_asset(
    LOOP,
    WHAT_IF,
    deps=[DECISIONS],
    description="Which decisions another bundle, mode or pack would have flipped, or what is known by now, and which change flips"
    " each. Nothing is written or done.",
    code_version="2",
    check_specs=[
        dg.AssetCheckSpec(ALL_TOLD, asset=WHAT_IF, description="Of each decision it can be told what it would have been.")
    ],
)
def loop_what_if(config: WhatIfConfig, plane: dg.ResourceParam[PlaneResource]) -> Iterator[dg.MaterializeResult[object]]:
    """Decide otherwise."""
    with plane.open("auditor") as opened_plane:
        try:
            tally = _try_otherwise(config, opened_plane, plane.environment().folder)
        except (ValueError, PackErrors, BundleDamaged, DecisionsUnread) as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        except BuildRefused as refused:
            raise dg.Failure(str(refused), allow_retries=refused.retryable) from None
    if not tally.looked_at:
        raise dg.Failure("the plane has decided on nothing in the run of the profile: `ofp decider run`", allow_retries=False)
    rows = [
        (flip.event_id, f"{flip.before} to {flip.after}", ", ".join(flip.causes), flip.score_before, flip.score_after)
        for flip in tally.flips[:_MOST_SHOWN]
    ]
    metadata: Metadata = {
        "dagster/row_count": tally.looked_at,
        "same": tally.same,
        "flips": len(tally.flips),
        "by_cause": markdown_table(["cause", "flips", "alone"], tally.cause_rows),
        "first_flips": markdown_table(["event", "change", "causes", "score before", "score after"], rows),
    }
    if tally.flips:
        changes = {f"{before} to {after}": count for (before, after), count in tally.by_change.items()}
        metadata["changes"] = counts_by_name(changes, "decisions", "flips by change")
        metadata["causes"] = counts_by_name({name: count for name, count, _ in tally.cause_rows}, "decisions", "flips by cause")
        metadata["causes_by_day"] = flips_by_day(tally.by_day)
    if tally.untold_decisions:
        head = ["event", "reason", "detail"]
        untold_rows = [(one.event_id, one.reason, one.detail) for one in tally.untold_decisions[:_MOST_SHOWN]]
        metadata["first_untold"] = markdown_table(head, untold_rows)
    untold = [f"{count:,}: {reason}" for reason, count in sorted(tally.untold.items())]
    check = dg.AssetCheckResult(
        check_name=ALL_TOLD, passed=not untold, severity=dg.AssetCheckSeverity.WARN, description="\n".join(untold) or None
    )
    yield dg.MaterializeResult(metadata=metadata, check_results=[check])


def _try_otherwise(config: WhatIfConfig, plane: Plane, folder: Path) -> WhatIfTally:
    """Raises as its parts do; ValueError: what is said of what is otherwise cannot be used."""
    load = ReadyBundles(plane.objects).load
    mode = Mode(config.mode) if config.mode else None
    bundle = load(bundle_named(config.bundle)) if config.bundle else None
    if bundle is None and mode is None and not config.pack and not config.as_known_now:
        raise ValueError("say what is otherwise: a bundle, a mode, a pack, all that is known now, or several")
    registry = other_registry(plane, config.pack, bundle) if config.pack else None
    with other_vectors(plane, folder, as_known_now=config.as_known_now, pack=registry) as vectors:
        trial = WhatIf(Alternative(bundle, mode, vectors), load)
        run = decided_run(plane)
        for page in run.pages(run.parts()):
            trial.look_at(page)
    return trial.tally


def _bundle_words(recorded: RecordedAs) -> str:
    return f"{recorded.bundle_name}/{recorded.bundle_digest[:12]}" if recorded.bundle_digest else "none"


decisions_job = dg.define_asset_job(
    "replay_decisions", dg.AssetSelection.assets(DECISIONS), description="Make the plane's own decisions again, bit for bit."
)
what_if_job = dg.define_asset_job(
    "what_if", dg.AssetSelection.assets(WHAT_IF), description="Show which decisions would have been others otherwise, and why."
)
