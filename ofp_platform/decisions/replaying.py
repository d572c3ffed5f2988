"""Decisions of a run made again by several processes: the parts are the same in one and in many, and so is their order."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process

from ofp_platform.decisions.decided_span import DecidedRun
from ofp_platform.decisions.ready_bundles import ReadyBundles
from ofp_platform.decisions.redeciding import ReplayTally, redecide
from ofp_platform.storage.decision_records import DecidedPart
from ofp_platform.storage.process_settings import collect_rarely

WORKERS = 2
"""Processes where nobody says how many."""
WORTH_A_PROCESS = 25_000
"""Decisions that take about as long as the start of a process."""
# more than what the decisions of a part are made of: they make no cycles, and to walk over them took a quarter of the time
_COLLECT_AFTER = 1_000_000


class ReplayBroken(Exception):
    """A process that decides again ended in the middle of it: nothing is known of the rest."""


def replay_parts(
    run: DecidedRun,
    open_run: Callable[[], DecidedRun],
    parts: Sequence[DecidedPart],
    tally: ReplayTally,
    workers: int = WORKERS,
    worth_a_process: int = WORTH_A_PROCESS,
) -> Iterator[int]:
    """Make the decisions of these parts again and count them in `tally`, in the order of the parts; yields how many each has.

    `workers`: the most processes, each with at least `worth_a_process` decisions; 1 is this one. `open_run`: opens the run in
    each of them; it travels there by pickle.

    Raises:
        DecisionsUnread: see there; behind the last part, where fewer were found than are recorded. ReplayBroken: see there.
        LogError | DatabaseUnavailable | ObjectStoreUnavailable | psycopg.Error: what does not answer.
    """
    unread_count = 0
    workers = min(workers, len(parts), sum(part.decisions for part in parts) // worth_a_process)
    if workers <= 1:
        tallies: Iterable[ReplayTally] = map(_Redecider(run).redecide, parts)
    else:
        tallies = _tallies_of_workers(open_run, parts, workers)
    for part, part_tally in zip(parts, tallies, strict=True):
        tally.add(part_tally)
        unread_count += part.decisions - part_tally.decisions
        yield part_tally.decisions
    run.demand_read(parts, unread_count)


@dataclass(frozen=True)
class _Redecider:
    """Makes the decisions of parts again, with each bundle loaded once."""

    run: DecidedRun
    bundles: ReadyBundles = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bundles", ReadyBundles(self.run.objects))

    def redecide(self, part: DecidedPart) -> ReplayTally:
        """The tally of one part."""
        tally = ReplayTally()
        for page in self.run.pages_of(part):
            redecide(page, self.bundles.load, tally)
        return tally


def _tallies_of_workers(open_run: Callable[[], DecidedRun], parts: Sequence[DecidedPart], workers: int) -> Iterator[ReplayTally]:
    """The tally of each part, in their order; few are held at once."""
    context = get_context("spawn")  # a fork would take the threads' locks of this process with it
    pool = ProcessPoolExecutor(workers, context, _start_worker, (open_run,))
    try:
        pending: deque[Future[ReplayTally]] = deque()
        for part in parts:
            pending.append(pool.submit(_redecide_in_worker, part))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise ReplayBroken(
            "a process that decides again ended in the middle: killed, or out of memory. Nothing is written, so the same command"
            " may be given again, with fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_opener: list[Callable[[], DecidedRun]] = []
_redecider: list[_Redecider] = []


def _start_worker(open_run: Callable[[], DecidedRun]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    collect_rarely(_COLLECT_AFTER)
    _opener.append(open_run)


def _redecide_in_worker(part: DecidedPart) -> ReplayTally:
    # opened with the first part, so that what does not answer is an error of that part, in words
    if not _redecider:
        _redecider.append(_Redecider(_opener[0]()))
    return _redecider[0].redecide(part)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # in the middle of whatever it is: it writes nothing
