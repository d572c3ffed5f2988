"""The mode that signals ask for, and the change that follows: a pure function of signals, policy, what is in force, and time.

A change is proposed at each edge: down at once; when the reasons to be as low are gone or come back, in the same mode; and up one
step when they were gone for the quiet time. So the last change alone says when quiet began, and whoever starts anew goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ofp_platform.vocabulary.loop.posture import Mode, PostureChange, PosturePolicy
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, parse_time

Signals = Mapping[str, int | None]
"""By name; a signal that is None or not there is absent."""
NOTHING_BEFORE = "nothing was said before"


class ProposedChange(NamedTuple):
    """A change that signals ask for. Times are microseconds since the epoch."""

    mode: Mode
    reasons: tuple[str, ...]
    signals: dict[str, int | None]
    bad_since: int


class Asked(NamedTuple):
    """The lowest mode that a threshold or an absence asks for, and each reason that does; NORMAL without a reason."""

    mode: Mode
    reasons: tuple[str, ...]


def asked_mode(signals: Signals, policy: PosturePolicy) -> Asked:
    """The mode that signals ask for under a policy."""
    modes, reasons = [Mode.NORMAL], []
    for name in policy.signals:
        if signals.get(name) is None:
            modes.append(policy.absent)
            reasons.append(f"{name} is absent: {policy.absent}")
    for threshold in policy.thresholds:
        value = signals.get(threshold.signal)
        if value is not None and value >= threshold.at_least:
            modes.append(threshold.mode)
            reasons.append(f"{threshold.signal} is {value}, at least {threshold.at_least}: {threshold.mode}")
    return Asked(max(modes, key=lambda mode: mode.depth), tuple(reasons))


def evaluate(
    signals: Signals, policy: PosturePolicy, previous: PostureChange | None, at: int, watched_since: int
) -> ProposedChange | None:
    """The change that follows from a look at signals; None: everything stays. Where nothing was said before: FAIL_CLOSED, from
    where it goes up like any other.

    `at`: the time of the look; `watched_since`: since when looks followed each other without a gap, for time that nobody looked
    at was not quiet. Both in microseconds. A time before that of `previous` raises nothing and shortens no quiet time.
    """
    asked = asked_mode(signals, policy)
    looked_at = {name: signals.get(name) for name in policy.signals}
    if previous is None:
        return ProposedChange(Mode.FAIL_CLOSED, (NOTHING_BEFORE, *asked.reasons), looked_at, at)
    if previous.held:
        return None
    mode, bad_since = previous.mode, parse_time(previous.bad_since_utc)
    latest = max(at, bad_since, parse_time(previous.at_utc))
    if asked.mode.depth > mode.depth:
        return ProposedChange(asked.mode, asked.reasons, looked_at, latest)
    if mode is Mode.NORMAL:
        return None
    was_bad = asked_mode(previous.signals, policy).mode.depth >= mode.depth
    if asked.mode is mode:
        return None if was_bad else ProposedChange(mode, asked.reasons, looked_at, latest)
    if was_bad:
        return ProposedChange(mode, (f"no reason for {mode} any more", *asked.reasons), looked_at, latest)
    if at - max(bad_since, watched_since) < policy.quiet_seconds * MICROS_PER_SECOND:
        return None
    words = f"{policy.quiet_seconds} s without a reason for {mode}"
    return ProposedChange(mode.above(), (words, *asked.reasons), looked_at, latest)
