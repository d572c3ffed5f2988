"""The forensic rebuild of one snapshot: the log folded again, from its first record to a basis.

Nothing that a projection stored is used. Equal bytes mean that the state served what the log says. It answers behind the
serving horizon, too; freshness counts events in front of the horizon only, as it did when it was served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofp_platform.identity.context_replay import ContextReplay
from ofp_platform.kernel.snapshot import Answer
from ofp_platform.log.port import RecordBatch
from ofp_platform.offline.parity.parity import resolution_of
from ofp_platform.offline.parity.parity_anchor import AnchorReader, NotComparable
from ofp_platform.offline.parity.rebuilding import QuestionAt, Rebuilder, ReplayedRun
from ofp_platform.offline.replay.knowledge import Knowledge
from ofp_platform.offline.replay.known_events import fold_replay
from ofp_platform.offline.replay.memory_budget import FoldSizes
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.question import check_request
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.profile import Limits, Profile
from ofp_platform.vocabulary.serving import GetFeaturesRequest, GraphVersion

_PAGE = 20_000
_SIZES = FoldSizes()
ANYTHING = Limits(max_keys=2**31, max_groups=2**31, max_request_context_fields=2**31)
"""No bound on what a request asks for."""
POSTURE: Mapping[str, Any] = {"state": "GREEN", "reasons": [], "lag_records": None}


class NotRebuildable(Exception):
    """A recorded snapshot that this log and registry cannot rebuild; the text says why."""


@dataclass(frozen=True)
class RunPolicies:
    """The run config's settings that are part of every value; times in microseconds."""

    run_config_digest: str
    clock_skew_us: int
    allowed_lateness_us: int

    @classmethod
    def of(cls, profile: Profile) -> RunPolicies:
        """The policies of a profile."""
        return cls(profile.run_config_digest, profile.clock_skew_us, profile.allowed_lateness_us)


def replay_run(
    stream_records: StreamRecords,
    basis: ReplayBasis,
    registry: CompiledRegistry,
    pins: ContextPins,
    policies: RunPolicies,
    scratch: Path,
    on_records: Callable[[int], None] = lambda count: None,
    sizes: FoldSizes = _SIZES,
) -> ReplayedRun:
    """Fold archive and log over a replay basis. `scratch` does not exist yet and is left to the caller to remove.

    Raises:
        as `ReplayReader.batches`.
    """

    def batches() -> Iterator[RecordBatch]:
        for span in basis.partitions:
            for batch in stream_records.reader.batches(span, _PAGE):
                yield batch
                on_records(len(batch) + len(batch.unreadable))

    folded_replay = fold_replay(
        batches(), registry, pins, policies.clock_skew_us, scratch, shards=sizes.shards, keys_held=sizes.keys_held
    )
    return ReplayedRun(
        Knowledge(folded_replay, basis), registry.pack, pins, policies.run_config_digest, policies.allowed_lateness_us
    )


def answer_at(
    run: ReplayedRun,
    request: GetFeaturesRequest,
    basis: Basis,
    graph_version: GraphVersion | None = None,
    context: ContextReplay | None = None,
) -> Answer:
    """The whole answer to a request at a basis, also behind the serving horizon; `graph_version`: what its groups resolve by, a
    version of the links in `context`.

    Raises:
        NotRebuildable: the replay does not hold everything that the basis knows, nor the links what the version knows.
        ContractError: the request cannot be asked, or a value cannot be served.
    """
    missing_part = run.knowledge.lacks(basis)
    if missing_part is not None:
        raise NotRebuildable(missing_part)
    rebuilder = Rebuilder(run)
    checked = check_request(request, rebuilder.registry, run.pins, ANYTHING)
    try:
        question = QuestionAt.of(checked, basis, resolution_of(checked, graph_version, context))
    except NotComparable as error:
        raise NotRebuildable(str(error)) from None
    evaluations = rebuilder.evaluate([question], run.knowledge.bounds([basis]))
    keys = evaluations.keys(0)
    return rebuilder.maker.snapshot(
        question.question,
        question.basis_text,
        evaluations.watermarks[0],
        keys,
        POSTURE,
        behind_horizon=True,
        resolution=question.resolution,
    )


def rebuild_recorded(
    stream_records: StreamRecords,
    registry: CompiledRegistry,
    pins: ContextPins,
    policies: RunPolicies,
    snapshot_fields: Mapping[str, Any],
    scratch: Path,
    on_records: Callable[[int], None] = lambda count: None,
    context: Callable[[], ContextReplay | None] = lambda: None,
) -> Answer:
    """The answer that the log gives to the question of a recorded snapshot (`SnapshotRecord.hashed`), at its basis.

    `scratch` does not exist yet and is left to the caller to remove; `on_records` is told how many records were read since it
    was last called; `context` reads the links of the run, for a snapshot that was resolved.

    Raises:
        NotRebuildable: half a provenance, or another stream, run, registry or run config than those given.
        ContractError: a value cannot be served.
        as `ReplayReader.batches`: archive and log do not hold the records any more, or do not answer.
    """
    try:
        served_snapshot = AnchorReader().read_facts(dict(snapshot_fields))
    except NotComparable as error:
        raise NotRebuildable(str(error)) from None
    served_provenance = (
        served_snapshot.basis.stream_name,
        served_snapshot.registry_digest,
        served_snapshot.run_config_digest,
        served_snapshot.plain.context_pins,
    )
    if served_provenance != (stream_records.log.stream_name, registry.digest, policies.run_config_digest, pins):
        raise NotRebuildable("the snapshot is of another stream, run, registry or run config than those given")
    # a snapshot that was served before the first record knows nothing: nothing is read for it
    parts = served_snapshot.basis.partitions or tuple(stream_records.whole(name).first for name in stream_records.ends)
    replay_basis = ReplayBasis.up_to(served_snapshot.basis.model_copy(update={"partitions": parts}))
    run = replay_run(stream_records, replay_basis, registry, pins, policies, scratch, on_records)
    try:
        version = served_snapshot.graph_version
        links = None if version is None else context()
        return answer_at(run, served_snapshot.request, served_snapshot.basis, version, links)
    except ContractError as error:
        raise NotRebuildable(f"the log gives no answer to the question of this snapshot: {error.message}") from None
