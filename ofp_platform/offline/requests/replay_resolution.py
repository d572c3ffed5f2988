"""The resolution of an intent's replay into offsets, all of which archive and log still have."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from ofp_platform.offline.requests.admission_selection import select_admitted
from ofp_platform.offline.sources.replay_reading import replaying
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.vocabulary.offline.build_intent import AdmissionTimes, Offsets
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import Basis, PartitionBasis, place
from ofp_platform.vocabulary.times import parse_time


@dataclass(frozen=True)
class ResolvedReplay:
    """The offsets, where reading each partition goes over from archive to log, and the times that selected them."""

    basis: ReplayBasis
    cut_over: tuple[PartitionBasis, ...]
    selected_by: AdmissionTimes | None = None


def resolve_replay(replay: Offsets | AdmissionTimes, stream_records: StreamRecords) -> ResolvedReplay:
    """The replay of an intent.

    Raises:
        BuildRefused: BASIS_UNRESOLVED (another stream or offset kind, an unknown partition, ahead of the log, no record);
            REPLAY_INCOMPLETE (neither archive nor log has all of it); ARCHIVE_DAMAGED; STORE_UNAVAILABLE.
    """
    if isinstance(replay, Offsets):
        return _resolve_spans(replay.basis, stream_records, "replay.basis")
    with replaying():
        spans = [
            select_admitted(stream_records, partition_id, parse_time(replay.from_utc), parse_time(replay.to_utc))
            for partition_id in stream_records.ends
        ]
    if all(span.is_empty for span in spans):
        raise _refusal("replay", "no record was admitted in this time range")
    basis = ReplayBasis(stream_name=stream_records.log.stream_name, partitions=tuple(spans))
    return ResolvedReplay(basis, _demand(basis, stream_records, "replay"), replay)


def resolve_basis(basis: Basis, stream_records: StreamRecords) -> ResolvedReplay:
    """Everything up to a basis, as in a forensic rebuild.

    Raises:
        BuildRefused: as `resolve_replay`.
    """
    try:
        whole = ReplayBasis.up_to(basis)
    except ValidationError:
        text = "not a basis: it names at least one partition, each once, with an offset of its offset kind"
        raise _refusal("basis.partitions", text) from None
    return _resolve_spans(whole, stream_records, "basis", order=[part.partition_id for part in basis.partitions])


def data_end(basis: ReplayBasis, stream_records: StreamRecords) -> int:
    """When the data of a replay ends, microseconds: the greatest admission time of the last record of each partition.

    Raises:
        BuildRefused: NOTHING_TO_BUILD when no record can be read; as `resolve_replay`.
    """
    with replaying():
        ends = [stream_records.last_admitted(span) for span in basis.partitions]
    known_ends = [end for end in ends if end is not None]
    if not known_ends:
        raise BuildRefused(BuildReason.NOTHING_TO_BUILD, "no record of the replay holds an event", "replay")
    return max(known_ends)


def _resolve_spans(
    basis: ReplayBasis, stream_records: StreamRecords, field: str, order: list[str] | None = None
) -> ResolvedReplay:
    """`order`: the partitions as the intent lists them, where that is not their order."""
    if basis.stream_name != stream_records.log.stream_name:
        raise _refusal(f"{field}.stream_name", f"the log is stream {stream_records.log.stream_name}, the basis is of another one")
    with replaying(field):
        ends = stream_records.ends
    names = order or [span.partition_id for span in basis.partitions]
    for span in basis.partitions:
        here = f"{field}.partitions.{names.index(span.partition_id)}"
        end = ends.get(span.partition_id)
        if end is None:
            raise _refusal(f"{here}.partition_id", f"the stream has no such partition; it has {', '.join(ends)}")
        if span.offset_kind is not end.offset_kind:
            raise _refusal(f"{here}.offset_kind", f"offsets of this log are of kind {end.offset_kind.value}")
        if place(span.end) > place(end):
            last = "offset" if order is not None else "next"
            raise _refusal(f"{here}.{last}", f"ahead of the log, which ends at {end.offset or 'its start'}")
        if not stream_records.log.history.is_of(span.end):
            raise _refusal(
                f"{here}.incarnation",
                f"the basis is of {_history(span.incarnation)}, and at {span.next} the log is of"
                f" {_history(stream_records.log.history.with_incarnation(span.end).incarnation)}: other records stand there",
            )
        if span.closed and not (end.closed and place(span.end) == place(end)):
            raise _refusal(f"{here}.closed", "the partition did not end there")
    if all(span.is_empty for span in basis.partitions):
        raise _refusal(field, "no record lies in this basis")
    return ResolvedReplay(basis, _demand(basis, stream_records, field))


def _history(incarnation: str | None) -> str:
    return "its first history" if incarnation is None else f"history {incarnation}"


def _demand(basis: ReplayBasis, stream_records: StreamRecords, field: str) -> tuple[PartitionBasis, ...]:
    with replaying(field):
        return tuple(span.first if span.is_empty else stream_records.demand(span) for span in basis.partitions)


def _refusal(field: str, message: str) -> BuildRefused:
    return BuildRefused(BuildReason.BASIS_UNRESOLVED, message, field)
