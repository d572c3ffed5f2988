"""The decisions of a plane's run, for commands and assets: of an open plane, and of one that each process opens for itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from ofp_platform.decisions.decided_span import DecidedRun
from ofp_platform.decisions.redeciding import ReplayTally
from ofp_platform.decisions.replaying import WORKERS, WORTH_A_PROCESS, replay_parts
from ofp_platform.online.plane import Plane
from ofp_platform.storage.decision_records import DecidedPart
from ofp_platform.vocabulary.profile import Profile


def decided_run(plane: Plane) -> DecidedRun:
    """The run of a plane's profile.

    Raises:
        StreamNotFound | LogUnavailable: see there.
    """
    profile = plane.profile
    return DecidedRun(plane.pool, plane.objects, plane.archived_log, profile.context_pins, profile.clock_skew_us)


def replay(
    plane: Plane,
    parts: Sequence[DecidedPart],
    tally: ReplayTally,
    workers: int = WORKERS,
    worth_a_process: int = WORTH_A_PROCESS,
) -> Iterator[int]:
    """As `replay_parts`, of a plane's run."""
    open_run = partial(_open_run, plane.profile, plane.dsn)
    return replay_parts(decided_run(plane), open_run, parts, tally, workers, worth_a_process)


def _open_run(profile: Profile, dsn: str) -> DecidedRun:
    return decided_run(Plane.open(profile, dsn, max_connections=1, create_stream=False))
