"""The archived part of a replay folded by several processes, whole partitions each; what is behind it is folded here.

A process needs nothing but the object store: no database, no log. All write to one folder (see `record_fold`); the writer of
this process has the last number, so that the files of a partition go on where the process that had its archive ended.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import cast

from ofp_platform.log.archive_reader import ReplayReader
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.incarnations import LogHistory
from ofp_platform.log.port import EventLog, RecordBatch
from ofp_platform.offline.replay.candidate_rows import CandidateScope
from ofp_platform.offline.replay.known_events import FoldedReplay, finish_fold
from ofp_platform.offline.replay.memory_budget import FoldSizes
from ofp_platform.offline.replay.record_fold import FoldedPartition, FoldTally, RecordFold
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.models import Pack
from ofp_platform.storage.process_settings import collect_rarely
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import PartitionBasis, place, record_limit

PAGE = 20_000  # records that are folded at once
LEAST_RECORDS = 200_000
"""Archived records below which starting processes, about a second each, costs more than it gives."""
_FAR = 2**62
_WAIT_SECONDS = 0.5
_SIZES = FoldSizes()


@dataclass(frozen=True)
class FoldSettings:
    """How records of one run are folded into a folder, whoever does it; to be sent to other processes.

    `history`: that of the log, by which the archive is read.
    """

    pack: Pack
    pins: ContextPins
    clock_skew_us: int
    history: LogHistory
    folder: Path
    sizes: FoldSizes = _SIZES
    scope: CandidateScope | None = None

    def open_fold(self, registry: CompiledRegistry, writer: int, partitions: dict[str, FoldedPartition]) -> RecordFold:
        """The fold of that writer; `registry`: the pack's. Partitions by their id."""
        tally = FoldTally(partitions=partitions)
        return RecordFold(
            registry, self.pins, self.clock_skew_us, self.folder, self.sizes.shards, self.scope, writer, tally,
            self.sizes.keys_held,
        )  # fmt: skip


@dataclass(frozen=True)
class Share:
    """The work of one process: archived spans, each with its partition's number, and how they are folded."""

    archive: Archive
    spans: tuple[tuple[int, PartitionSpan], ...]
    settings: FoldSettings
    writer: int


@dataclass(frozen=True)
class ShareFailure:
    """The error that ended a share, and the number of the partition at which it did."""

    partition: int
    error: Exception


class ArchivedFold:
    """A fold that other processes work on. `remaining_spans`: the rest of each partition, which this process folds."""

    def __init__(self, division: DividedReplay, running: Sequence[tuple[SpawnProcess, Connection]]) -> None:
        self.remaining_spans = division.remaining_spans
        self._division = division
        self._running = running

    def wait(self, check: Callable[[], None]) -> None:
        """Wait until every process has an answer or ended; meanwhile `check` is called again and again, and may raise."""
        unanswered = [connection for _, connection in self._running]
        while unanswered:
            answered_connections = wait(unanswered, _WAIT_SECONDS)
            unanswered = [connection for connection in unanswered if connection not in answered_connections]
            check()

    def finish(self, rest: Iterable[RecordBatch]) -> FoldedReplay:
        """Wait for the processes, then fold the `rest`: the records of `remaining_spans`, read only then.

        Raises:
            what reading the archive raises (see `ReplayReader`), ValueError as `fold_replay`: of several the first by
                partition. RuntimeError: a process ended without a word.
        """
        answers: list[FoldTally | ShareFailure] = []
        for process, connection in self._running:
            try:
                answers.append(pickle.loads(connection.recv_bytes()))
            except EOFError:
                process.join()
                text = f"a process that folds a part of the archive ended with exit code {process.exitcode}, without an answer"
                text = f"{text}; where it has no memory left, build with fewer workers, or give the build a `--memory`"
                answers.append(ShareFailure(_FAR, RuntimeError(text)))
        tallies = demand_tallies(answers)
        fold = self._division.fold_rest(tallies, rest)
        return finish_fold(fold, [*tallies, fold.tally])


def demand_tallies(answers: Iterable[FoldTally | ShareFailure]) -> list[FoldTally]:
    """The tallies, where no share has failed; else the error of the first failure by its partition is raised."""
    tallies: list[FoldTally] = []
    failures: list[ShareFailure] = []
    for answer in answers:
        if isinstance(answer, ShareFailure):
            failures.append(answer)
        else:
            tallies.append(answer)
    if failures:
        raise min(failures, key=lambda failure: failure.partition).error
    return tallies


@dataclass(frozen=True)
class DividedReplay:
    """A replay division: the archived part in shares of whole partitions, and the rest of each partition.

    `records`: about how many the shares have. `open_fold` opens the writer of the rest, whose number is the last.
    """

    shares: tuple[Share, ...]
    records: int
    remaining_spans: tuple[PartitionSpan, ...]
    open_fold: Callable[[], RecordFold]

    def fold_rest(self, tallies: Iterable[FoldTally], rest: Iterable[RecordBatch]) -> RecordFold:
        """Fold the records of `remaining_spans` behind the shares, whose tallies these are; the fold is closed."""
        fold = self.open_fold()
        for tally in tallies:
            fold.tally.partitions |= tally.partitions
        try:
            for batch in rest:
                fold.add(batch)
        finally:
            fold.close()
        return fold


def divide(
    archive: Archive,
    spans: Sequence[PartitionSpan],
    cut_over: Iterable[PartitionBasis],
    registry: CompiledRegistry,
    settings: FoldSettings,
    *,
    workers: int | None,
) -> DividedReplay:
    """Divide the spans, each at its `cut_over`, into at most `workers` shares; None: a share for each partition.

    `registry`: the pack of the settings, compiled.

    Raises:
        ReceiptDamaged | ObjectStoreUnavailable: of a sparse log.
    """
    cut_overs = {part.partition_id: part for part in cut_over}
    nonempty_spans = [span for span in spans if not span.is_empty]
    parts = [(span.up_to(cut_overs.get(span.partition_id, span.first)), span) for span in nonempty_spans]
    archived_parts = [(number, part) for number, (part, _) in enumerate(parts) if not part.is_empty]
    records = {number: span_records(archive, part) for number, part in archived_parts}
    groups = _balance(archived_parts, records, workers or len(archived_parts)) if archived_parts else []
    shares = tuple(Share(archive, group, settings, writer) for writer, group in enumerate(groups))
    partitions = {span.partition_id: FoldedPartition(number, span.first) for number, span in enumerate(nonempty_spans)}

    def open_fold() -> RecordFold:
        return settings.open_fold(registry, len(groups), partitions)

    remaining_spans = tuple(span.rest(part.end) for part, span in parts if place(part.end) < place(span.end))
    return DividedReplay(shares, sum(records.values()), remaining_spans, open_fold)


@contextmanager
def archived_fold(
    archive: Archive,
    spans: Sequence[PartitionSpan],
    cut_over: Iterable[PartitionBasis],
    registry: CompiledRegistry,
    settings: FoldSettings,
    *,
    workers: int,
    least_records: int = LEAST_RECORDS,
) -> Iterator[ArchivedFold | None]:
    """Start folding the spans, each as far as its `cut_over`, by up to `workers` processes; they are gone behind the context.

    The folder does not exist yet. None, and nothing is done: fewer than two processes would have something to do, the archive
    has less than `least_records`, or the store cannot be opened elsewhere.

    Raises:
        FileExistsError: the folder exists. ReceiptDamaged | ObjectStoreUnavailable: of a sparse log.
    """
    division = divide(archive, spans, cut_over, registry, settings, workers=workers)
    pickled_shares = None
    if len(division.shares) > 1 and division.records >= least_records:
        pickled_shares = pickle_shares(division.shares)
    if pickled_shares is None:
        yield None
        return
    settings.folder.mkdir(parents=True)
    running: list[tuple[SpawnProcess, Connection]] = []
    try:
        for task in pickled_shares:
            running.append(_start_process(_fold_in_process, task))
        yield ArchivedFold(division, running)
    finally:
        for process, connection in running:
            process.kill()  # it has given its answer, or nobody waits for it any more
            process.join()
            connection.close()


def span_records(archive: Archive, span: PartitionSpan) -> int:
    """About how many records the span has; of a sparse log those that are archived."""
    limit = record_limit(span.first, span.end)
    if limit is not None:
        return limit
    receipts = map(archive.receipt, span.covered_by(archive.spans(span.partition_id, span.offset_kind)))
    return sum(receipt.records for receipt in receipts if receipt is not None)


def _balance(
    spans: Sequence[tuple[int, PartitionSpan]], records: dict[int, int], workers: int
) -> list[tuple[tuple[int, PartitionSpan], ...]]:
    """The spans in at most `workers` groups of about equal records, in each by their numbers."""
    groups: list[list[tuple[int, PartitionSpan]]] = [[] for _ in range(min(workers, len(spans)))]
    sizes = [0] * len(groups)
    for span in sorted(spans, key=lambda span: (-records[span[0]], span[0])):
        smallest = sizes.index(min(sizes))
        groups[smallest].append(span)
        sizes[smallest] += max(records[span[0]], 1)
    return [tuple(sorted(group, key=lambda span: span[0])) for group in groups]


def pickle_shares(shares: Sequence[Share]) -> list[bytes] | None:
    """Each share as bytes; None where its store lives in this process only."""
    try:
        return [pickle.dumps(share) for share in shares]
    except (pickle.PicklingError, TypeError, AttributeError):
        return None


def _start_process(target: Callable[[bytes, Connection], None], task: bytes) -> tuple[SpawnProcess, Connection]:
    context = get_context("spawn")  # a fork would take the threads' locks of this process with it
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(task, sender), daemon=True)
    process.start()
    sender.close()  # else its end would not show here
    return process, receiver


@dataclass(frozen=True)
class _NoLog:
    """Stands where a reader wants the log: of a span that ends in the archive nothing else is asked."""

    stream_name: str
    history: LogHistory


def _fold_in_process(task: bytes, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    collect_rarely()
    answer = fold_share(pickle.loads(task))
    try:
        connection.send_bytes(pickle.dumps(answer))
    except BrokenPipeError:
        return  # nobody is there any more


def fold_share(share: Share) -> FoldTally | ShareFailure:
    """Fold a share into its folder, which exists; the tally of its writer, or the error that ended it."""
    partition_number = share.spans[0][0]
    try:
        log = _NoLog(share.archive.stream_name, share.settings.history)
        reader = ReplayReader(cast(EventLog, log), share.archive)
        partitions = {span.partition_id: FoldedPartition(number, span.first) for number, span in share.spans}
        fold = share.settings.open_fold(compile_pack(share.settings.pack), share.writer, partitions)
        for partition_number, span in share.spans:  # noqa: B007 - an error tells where
            for batch in reader.batches(span, PAGE, span.end):
                fold.add(batch)
        fold.close()
    except Exception as error:
        error.add_note(f"in a process that folds a part of the archive:\n{traceback.format_exc()}")
        return ShareFailure(partition_number, error)
    return fold.tally


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # in the middle of whatever it is: nobody reads what is written
