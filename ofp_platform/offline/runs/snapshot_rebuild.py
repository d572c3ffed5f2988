"""The forensic rebuild as a build: one snapshot at one basis, from the log, written once under its hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from ofp_platform.offline.parity.forensic_rebuild import NotRebuildable, answer_at
from ofp_platform.offline.parity.rebuilding import ReplayedRun
from ofp_platform.offline.replay.knowledge import Knowledge
from ofp_platform.offline.runs import build_stages, replay_stage
from ofp_platform.offline.runs.build_bounds import BuildGuard
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.sources.run_links import run_links
from ofp_platform.storage.objects import ObjectConflict, ObjectStoreUnavailable
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, AsOfSpec, ForensicRebuild
from ofp_platform.vocabulary.offline.build_plan import BuildPlan
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.rebuilt_snapshot import RebuiltFeatureSnapshot, rebuilt_snapshot_path
from ofp_platform.vocabulary.serving import GetFeaturesRequest


def rebuild_snapshot(
    build_context: BuildContext, plan: BuildPlan, intent: ForensicRebuild, folder: Path, guard: BuildGuard
) -> dict[str, Any]:
    """Answer the intent's question from a replay; `folder` is the run's own. The outcome of the run.

    `outcome`: MATCH or MISMATCH against the expected hash, REBUILT where none was given. A mismatch is a finding, not a
    failure: the run is DONE and says so.

    Raises:
        what the guard raises.
        BuildRefused: the replay cannot be read, or lacks what the basis knows; INVALID_INTENT, the question cannot be asked;
            STORE_UNAVAILABLE.
    """
    registry = build_stages.plan_registry(build_context, plan)
    folded_replay, _, receipt = replay_stage.replay(build_context, plan, registry, folder / "replay", None, guard)
    run = ReplayedRun(
        Knowledge(folded_replay, plan.replay_basis),
        registry.pack,
        plan.context_pins,
        plan.run_config_digest,
        plan.allowed_lateness_us,
    )
    links = None
    if intent.graph_version is not None:
        links = run_links(build_context.context_log, plan.context_pins, plan.clock_skew_us, "graph_version")
    request = GetFeaturesRequest(
        context_pins=intent.context_pins,
        feature_keys=intent.feature_keys,
        feature_groups=intent.feature_groups,
        as_of_time_utc=intent.as_of_time_utc,
        request_context=intent.request_context,
    )
    try:
        answer = answer_at(run, request, intent.basis, intent.graph_version, links)
    except ContractError as error:
        raise BuildRefused(BuildReason.INVALID_INTENT, f"{error.reason}: {error.message}") from None
    except NotRebuildable as error:
        raise BuildRefused(BuildReason.REPLAY_INCOMPLETE, str(error), "basis") from None
    digest = answer.hash
    path = rebuilt_snapshot_path(digest)
    as_of = AsOfSpec(as_of_time_utc=request.as_of_time_utc, as_of_basis=AsOfBasis.DECISION)
    record = RebuiltFeatureSnapshot.of(digest, orjson.loads(answer.hashed), as_of).wire()
    try:
        build_context.objects.put_same(path, canonical_bytes(record))
    except ObjectStoreUnavailable as error:
        raise BuildRefused(BuildReason.STORE_UNAVAILABLE, str(error)) from None
    except ObjectConflict as error:
        raise BuildRefused(BuildReason.PUBLICATION_CONFLICT, str(error)) from None
    expected_hash = intent.expected_hash
    return {
        "outcome": "REBUILT" if expected_hash is None else "MATCH" if expected_hash == digest else "MISMATCH",
        "feature_snapshot_hash": digest,
        "object_path": path,
        "records": receipt.records,
    }
