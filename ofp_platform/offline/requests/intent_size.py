"""Rows of a build that its intent alone decides, held against the limits of the profile."""

from __future__ import annotations

from ofp_platform.vocabulary.offline.build_intent import (
    DatasetBuild,
    ForensicRebuild,
    ParityRebuild,
    PerEntity,
    PerGrid,
    PerTable,
)
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.profile import BuildLimits
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, parse_time


def grid_times(scope: PerGrid) -> int:
    """Points of time of a grid."""
    span, step = parse_time(scope.to_utc) - parse_time(scope.from_utc), scope.step_seconds * MICROS_PER_SECOND
    return -(-span // step)


def least_rows(intent: DatasetBuild | ParityRebuild | ForensicRebuild) -> tuple[int, str]:
    """Rows that a build has at least by its intent alone, and how they are counted; none where only the log knows."""
    scope = intent.scope if isinstance(intent, DatasetBuild) else None
    if isinstance(scope, PerEntity):
        rows = len({(parse_time(row.as_of_time_utc), row.key_id) for row in scope.rows})
        return rows, f"{rows:,} entities and times"
    if isinstance(scope, PerGrid):
        times = grid_times(scope)
        entities = 1 if scope.key_ids is None else len(set(scope.key_ids))
        words = f"{times:,} times for {'each entity of the replay' if scope.key_ids is None else f'{entities:,} entities'}"
        return times * entities, words
    if isinstance(scope, PerTable):
        return scope.rows, "those of its entity table"
    return 0, ""


def check_intent_size(intent: DatasetBuild | ParityRebuild | ForensicRebuild, limits: BuildLimits) -> None:
    """Refuse an intent whose rows are too many whatever the log has.

    Raises:
        BuildRefused: BUILD_TOO_LARGE.
    """
    rows, words = least_rows(intent)
    if rows > limits.max_rows:
        refuse_rows(f"at least {rows:,} rows: {words}", limits)


def refuse_rows(words: str, limits: BuildLimits) -> None:
    """Refuse a scope of so many rows.

    Raises:
        BuildRefused: BUILD_TOO_LARGE.
    """
    raise BuildRefused(
        BuildReason.BUILD_TOO_LARGE,
        f"the scope has {words}, more than builds.max_rows of the profile, {limits.max_rows:,}: a longer step, fewer entities or"
        " events, or a greater limit",
        "scope",
    )
