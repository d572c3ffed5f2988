"""Vectors of a run's decisions otherwise: the replays under the packs that they were served under, and under another one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ofp_platform.identity.graph_knowledge import GraphKnowledge
from ofp_platform.offline.parity.anchor_source import decisions_in
from ofp_platform.offline.parity.forensic_rebuild import RunPolicies, replay_run
from ofp_platform.offline.parity.parity import ParityRuns, RunKey
from ofp_platform.offline.parity.vector_variants import Otherwise, VectorVariants
from ofp_platform.offline.requests.replay_resolution import resolve_basis
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.runs.replay_stage import fold_sizes
from ofp_platform.offline.runs.run_parity import context_of, replayed_packs
from ofp_platform.offline.runs.scratch_folders import passing_folder
from ofp_platform.offline.sources.replay_reading import replaying
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import make_basis


@dataclass(frozen=True)
class VariantsWanted:
    """Which vectors: with all that is known now, with the features of `pack` (None: as they were defined), or both."""

    as_known_now: bool
    pack: CompiledRegistry | None = None


@contextmanager
def run_variants(
    build_context: BuildContext, pins: ContextPins, policies: RunPolicies, variants_wanted: VariantsWanted
) -> Iterator[VectorVariants]:
    """The vectors of a run's decisions otherwise, from all that archive and log hold; as long as it is needed.

    Raises:
        BuildRefused: BASIS_UNRESOLVED, REPLAY_INCOMPLETE, ARCHIVE_DAMAGED, STORE_UNAVAILABLE.
    """
    with replaying("basis"):
        ends = make_basis(build_context.log.stream_name, build_context.stream_records.ends)
    basis = resolve_basis(ends, build_context.stream_records).basis
    decision_ids = decisions_in(build_context.pool, pins, basis)
    with passing_folder(build_context.scratch) as folder:
        runs = replayed_packs(build_context, pins, policies, basis, decision_ids, folder)
        other_pack: RunKey | None = None
        if variants_wanted.pack is not None:
            other_pack = variants_wanted.pack.digest, policies.run_config_digest
            if other_pack not in runs:
                with replaying("basis"):
                    runs[other_pack] = replay_run(
                        build_context.stream_records, basis, variants_wanted.pack, pins, policies, folder / "other-pack",
                        sizes=fold_sizes(build_context, basis, variants_wanted.pack),
                    )  # fmt: skip
        context = context_of(build_context, runs, pins, policies.clock_skew_us)
        later_graph = None if context is None or not variants_wanted.as_known_now else GraphKnowledge(context).newest
        later = ends if variants_wanted.as_known_now else None
        parity = ParityRuns(build_context.log.stream_name, pins, runs, context)
        yield VectorVariants(parity, Otherwise(later, later_graph, other_pack))
