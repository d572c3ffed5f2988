"""How large a build may be: estimated from its intent and plan before it starts, counted when its rows are known, measured while
it runs, and held against the limits of the profile."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ofp_platform.offline.datasets.feature_rows import requested_groups
from ofp_platform.offline.replay.known_events import FoldedReplay
from ofp_platform.offline.requests.intent_size import check_intent_size, least_rows, refuse_rows
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, PerEntity, PerGrid, PerTable
from ofp_platform.vocabulary.offline.build_plan import BuildPlan
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.profile import BuildLimits

T = TypeVar("T")
RECORD_BYTES = 512
"""Of scratch for a record of the replay: an event row of each key type, a candidate, and what is sorted of them."""
_ROW_BYTES = 256
_KEY_BYTES = 48
_FEATURE_BYTES = 24
_DAY = (
    "SELECT coalesce(sum((content::jsonb ->> 'rows')::bigint), 0)::bigint,"
    " coalesce(sum((content::jsonb ->> 'bytes')::bigint), 0)::bigint"
    " FROM ofp.build_receipt JOIN ofp.build_run USING (run_key)"
    " WHERE stage = 'size' AND recorded_at > now() - interval '1 day'"
    " AND submitted_by IS NOT DISTINCT FROM %s AND run_key <> %s"
)
SIZE = "size"
"""The receipt of an attempt that says how many rows it writes, and about how many bytes: what a day's quota is the sum of."""


@dataclass(frozen=True)
class BuildSize:
    """An estimate. `rows`: at most, but for a grid over all entities, where the log is not read yet: at least; `bytes`: about."""

    records: int
    rows: int
    bytes: int


def plan_size(plan: BuildPlan, registry: CompiledRegistry | None, records: int) -> BuildSize:
    """The size of a planned build: `records` are those of its replay. Without a registry: a build without rows."""
    rows = _plan_rows(plan, records)
    row_bytes = 0 if registry is None else _row_bytes(plan, registry)
    return BuildSize(records, rows, records * RECORD_BYTES + rows * row_bytes)


def _plan_rows(plan: BuildPlan, records: int) -> int:
    if plan.scope is None:
        return 0
    if isinstance(plan.scope, PerEntity | PerGrid | PerTable):
        return least_rows(plan.intent)[0]
    return len(plan.decisions) if plan.as_of_basis is AsOfBasis.DECISION else records


def _row_bytes(plan: BuildPlan, registry: CompiledRegistry) -> int:
    groups = requested_groups(registry, plan.feature_groups or ())
    features = sum(len(group.features) + len(group.on_demand) for group in groups)
    return _ROW_BYTES + _KEY_BYTES * len({group.key_type for group in groups}) + _FEATURE_BYTES * features


def check_plan_size(size: BuildSize, plan: BuildPlan, limits: BuildLimits) -> None:
    """Refuse a planned build before anything of it is read or written.

    A scope of events is held against the limit of rows when its events are known: of the records of a replay, few may be meant.

    Raises:
        BuildRefused: BUILD_TOO_LARGE.
    """
    if size.records > limits.max_records:
        raise BuildRefused(
            BuildReason.BUILD_TOO_LARGE,
            f"the replay has about {size.records:,} records, more than builds.max_records of the profile, {limits.max_records:,}:"
            " a shorter replay, or a greater limit",
            "replay",
        )
    if isinstance(plan.scope, PerEntity | PerGrid | PerTable):
        check_intent_size(plan.intent, limits)
        _check_bytes(size, limits)
    elif size.records * RECORD_BYTES > limits.max_bytes:
        _check_bytes(BuildSize(size.records, 0, size.records * RECORD_BYTES), limits)


def folded_size(plan: BuildPlan, registry: CompiledRegistry, folded_replay: FoldedReplay) -> BuildSize:
    """The size of a build whose replay is folded: its rows are known now, but for copies of events among them."""
    rows = _plan_rows(plan, folded_replay.candidates)
    if isinstance(plan.scope, PerGrid) and plan.scope.key_ids is None:
        rows *= len(folded_replay.key_ids(plan.scope.key_type.value))
    return BuildSize(folded_replay.records, rows, folded_replay.records * RECORD_BYTES + rows * _row_bytes(plan, registry))


def check_folded_size(size: BuildSize, limits: BuildLimits) -> None:
    """Refuse a build before its first row is written.

    Raises:
        BuildRefused: BUILD_TOO_LARGE.
    """
    if size.rows > limits.max_rows:
        refuse_rows(f"{size.rows:,} rows in this replay", limits)
    _check_bytes(size, limits)


def check_day(pool: Pool, run_key: str, submitted_by: str | None, size: BuildSize, limits: BuildLimits) -> None:
    """Refuse a build that takes whoever submitted it past a day's quota of rows or bytes.

    Raises:
        BuildRefused: QUOTA_EXCEEDED.
    """
    with pool.connection() as connection:
        row = connection.execute(_DAY, (submitted_by, run_key)).fetchone()
    assert row is not None  # an aggregate
    for unit, used, more, limit in (
        ("rows", row[0], size.rows, limits.max_rows_a_day),
        ("bytes", row[1], size.bytes, limits.max_bytes_a_day),
    ):
        if used + more > limit:
            raise BuildRefused(
                BuildReason.QUOTA_EXCEEDED,
                f"builds of {submitted_by or 'nobody in particular'} wrote about {used:,} {unit} in the last 24 hours, this one"
                f" has {more:,}, and builds.max_{unit}_a_day of the profile is {limit:,}: wait, or raise it",
            )


def _check_bytes(size: BuildSize, limits: BuildLimits) -> None:
    if size.bytes > limits.max_bytes:
        raise BuildRefused(
            BuildReason.BUILD_TOO_LARGE,
            f"{size.records:,} records and {size.rows:,} rows take about {size.bytes:,} bytes of scratch and files, more than"
            f" builds.max_bytes of the profile, {limits.max_bytes:,}",
            "scope",
        )


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder, as far as they are there while it is looked at."""
    total = 0
    for parent, _, names in os.walk(folder):  # a folder that was moved meanwhile is no error of a walk
        for name in names:
            with contextlib.suppress(OSError):  # removed meanwhile
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


@dataclass
class BuildGuard:
    """Ends a build that may not go on: one that was cancelled, or that holds more bytes than it may.

    `demand_running` raises where the run is not this attempt's any more. `clock` gives seconds; it decides only how often the
    guard looks. `on_look` is told the bytes that the build holds.
    """

    folder: Path
    max_bytes: int
    demand_running: Callable[[], None]
    clock: Callable[[], float]
    every_seconds: float = 1.0
    on_look: Callable[[int], None] = lambda held: None
    _next_look: float = field(default=0.0)

    def check(self) -> None:
        """Look, where some time has passed since the last look.

        Raises:
            LeaseLost: the run was cancelled, or another builder goes on. BuildRefused: BUILD_TOO_LARGE.
        """
        now = self.clock()
        if now >= self._next_look:
            self.check_now()
            self._next_look = self.clock() + max(self.every_seconds, 20 * (self.clock() - now))

    def check_now(self) -> None:
        """Look; raises as `check`."""
        self.demand_running()
        size = folder_bytes(self.folder)
        self.on_look(size)
        if size > self.max_bytes:
            raise BuildRefused(
                BuildReason.BUILD_TOO_LARGE,
                f"the build holds {size:,} bytes of scratch and files, more than builds.max_bytes of the profile,"
                f" {self.max_bytes:,}: it was stopped, and they are removed",
            )

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """The items, with a look before each."""
        for item in items:
            self.check()
            yield item
