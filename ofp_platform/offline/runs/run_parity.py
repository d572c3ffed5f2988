"""Parity of a whole run: every decision that is recorded up to a basis, compared with what the log gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofp_platform.identity.context_replay import ContextReplay
from ofp_platform.identity.graph_knowledge import GraphKnowledge
from ofp_platform.offline.parity.anchor_source import decision_anchors, decisions_in, registries_of
from ofp_platform.offline.parity.correction_ledger import CorrectionLedger, CorrectionTally
from ofp_platform.offline.parity.correction_store import store_corrections
from ofp_platform.offline.parity.forensic_rebuild import RunPolicies, replay_run
from ofp_platform.offline.parity.parity import ParityRuns, RunKey, compare_all
from ofp_platform.offline.parity.parity_store import store_records
from ofp_platform.offline.parity.rebuilding import ReplayedRun
from ofp_platform.offline.replay.knowledge import Knowledge
from ofp_platform.offline.replay.known_events import FoldedReplay
from ofp_platform.offline.requests.replay_resolution import resolve_basis
from ofp_platform.offline.runs.build_bounds import BuildGuard
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.runs.replay_stage import fold_sizes
from ofp_platform.offline.runs.scratch_folders import passing_folder
from ofp_platform.offline.sources.replay_reading import replaying
from ofp_platform.offline.sources.run_links import run_links
from ofp_platform.offline.sources.store_outage import answering
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.models import Identity
from ofp_platform.registry.pack import load_pack
from ofp_platform.storage.published_packs import pack_content
from ofp_platform.storage.snapshot_records import hashed_part, read_record
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.parity_record import Correction, ParityResult, RunParityRequest
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.serving import GraphVersion

_PAGE = 2_048
_MANY = 100_000  # below, other processes take longer to start than the work takes


@dataclass(frozen=True)
class RunToProve:
    """A run, the policies it is rebuilt under, and the basis up to which it is compared."""

    pins: ContextPins
    policies: RunPolicies
    basis: Basis

    @property
    def request_id(self) -> str:
        """SHA-256 over the request: the same comparison, whoever requests it."""
        return self.request_of(None)

    def request_of(self, later_graph: GraphVersion | None) -> str:
        """The same of its corrections, which depend on the links that are known by now, too."""
        request = RunParityRequest(
            context_pins=self.pins,
            run_config_digest=self.policies.run_config_digest,
            basis=self.basis,
            graph_version=later_graph,
        )
        return digest_of(request.wire())


def prove_run(
    build_context: BuildContext, run: RunToProve, on_record: Callable[[ParityResult], None] = lambda record: None
) -> Counter[str]:
    """Compare every decision on an event before the basis, and keep the records. How many of each outcome.

    Raises:
        BuildRefused: BASIS_UNRESOLVED; NOTHING_TO_BUILD, no decision is recorded there; REPLAY_INCOMPLETE, ARCHIVE_DAMAGED;
            PARITY_MISMATCH, the same comparison had another outcome before; STORE_UNAVAILABLE.
    """
    with _decisions_and_replay(build_context, run) as (decision_ids, parity):
        return compare_and_store(build_context, parity, decision_ids, run.request_id, on_record)


def correct_run(build_context: BuildContext, run: RunToProve) -> CorrectionTally:
    """Append to the ledger the values that each decision would have had, had all events before the basis been known, and all
    links that there are.

    Raises:
        BuildRefused: as `prove_run`.
    """
    with _decisions_and_replay(build_context, run) as (decision_ids, parity):
        later_graph = None if parity.context is None else GraphKnowledge(parity.context).newest
        request_id = run.request_of(later_graph)
        ledger = CorrectionLedger(parity, run.basis, request_id, later_graph, CorrectionTally(request_id))
        page: list[Correction] = []
        for correction in ledger.corrections(decision_anchors(build_context.pool, decision_ids)):
            page.append(correction)
            if len(page) == _PAGE:
                store_corrections(build_context.pool, page)
                page = []
        store_corrections(build_context.pool, page)
    return ledger.tally


@contextmanager
def _decisions_and_replay(build_context: BuildContext, run: RunToProve) -> Iterator[tuple[list[str], ParityRuns]]:
    """The decisions up to the basis and the replay to compare them with, as long as it is needed."""
    basis = resolve_basis(run.basis, build_context.stream_records).basis
    decision_ids = decisions_in(build_context.pool, run.pins, basis)
    if not decision_ids:
        raise BuildRefused(BuildReason.NOTHING_TO_BUILD, "no decision of this run is recorded up to this basis", "basis")
    with passing_folder(build_context.scratch) as folder:
        runs = replayed_packs(build_context, run.pins, run.policies, basis, decision_ids, folder)
        context = context_of(build_context, runs, run.pins, run.policies.clock_skew_us)
        yield decision_ids, ParityRuns(build_context.log.stream_name, run.pins, runs, context)


def replayed_packs(
    build_context: BuildContext,
    pins: ContextPins,
    policies: RunPolicies,
    basis: ReplayBasis,
    decision_ids: Sequence[str],
    folder: Path,
    folded_replay: FoldedReplay | None = None,
    guard: BuildGuard | None = None,
) -> dict[RunKey, ReplayedRun]:
    """The replay, folded under every pack that the decisions were served under and that is published here.

    `folded_replay`: this very replay, where it was folded under one of the packs already.

    Raises:
        BuildRefused: REPLAY_INCOMPLETE, ARCHIVE_DAMAGED, STORE_UNAVAILABLE. What the guard raises.
    """
    runs: dict[RunKey, ReplayedRun] = {}
    for digest in registries_of(build_context.pool, decision_ids):
        with answering(), build_context.pool.connection() as connection:
            content = pack_content(connection, digest)
        if content is None:
            continue  # its decisions are uncheckable, and say so
        registry = compile_pack(load_pack(content, digest))
        if folded_replay is not None and folded_replay.registry_digest == digest:
            config, lateness = policies.run_config_digest, policies.allowed_lateness_us
            replayed_run = ReplayedRun(Knowledge(folded_replay, basis), registry.pack, pins, config, lateness)
        else:
            with replaying("basis"):
                sizes = fold_sizes(build_context, basis, registry)
                replayed_run = replay_run(
                    build_context.stream_records, basis, registry, pins, policies, folder / digest[:16],
                    lambda _records: None if guard is None else guard.check(), sizes,
                )  # fmt: skip
        runs[digest, policies.run_config_digest] = replayed_run
    return runs


def context_of(
    build_context: BuildContext, runs: Mapping[RunKey, ReplayedRun], pins: ContextPins, clock_skew_us: int
) -> ContextReplay | None:
    """The links of the run, read anew, where any of its packs resolves identities and there is a context stream.

    Raises:
        BuildRefused: REPLAY_INCOMPLETE, STORE_UNAVAILABLE.
    """
    resolves = any(group.identity is Identity.RESOLVED for run in runs.values() for group in run.pack.groups)
    if not resolves or build_context.context_log is None:
        return None
    return run_links(build_context.context_log, pins, clock_skew_us, "basis")


def compare_and_store(
    build_context: BuildContext,
    parity: ParityRuns,
    decision_ids: Sequence[str],
    request_id: str,
    on_record: Callable[[ParityResult], None] = lambda record: None,
) -> Counter[str]:
    """Compare recorded decisions and keep the records. How many of each outcome.

    Raises:
        BuildRefused: PARITY_MISMATCH, the same comparison had another outcome before; STORE_UNAVAILABLE.
    """
    counts: Counter[str] = Counter()
    page: list[ParityResult] = []
    workers = build_context.workers if len(decision_ids) > _MANY else 1
    anchors = decision_anchors(build_context.pool, decision_ids)
    for record in compare_all(anchors, parity, request_id, stored_snapshots(build_context, parity.pins), workers=workers):
        counts[record.outcome.value] += 1
        on_record(record)
        page.append(record)
        if len(page) == _PAGE:
            store_records(build_context.pool, page)
            page = []
    store_records(build_context.pool, page)
    return counts


def stored_snapshots(build_context: BuildContext, pins: ContextPins) -> Callable[[str], dict[str, Any]]:
    """A reader of served snapshots of a run by hash, for `compare_all`."""

    def hashed_of(snapshot_hash: str) -> dict[str, Any]:
        return hashed_part(read_record(build_context.pool, build_context.objects, snapshot_hash, pins), snapshot_hash)

    return hashed_of
