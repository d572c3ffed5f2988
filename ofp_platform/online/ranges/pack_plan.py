"""Plan a new pack: hold it against the live one, say what comes and goes, who reads it, and what a build beside would cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import Connection, sql

from ofp_platform.online.plane import Plane
from ofp_platform.online.ranges.comparison import HistoryFold
from ofp_platform.online.state.progress import read_progress
from ofp_platform.online.state.projection import ProjectionRow, RegistryRefused, published_groups
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.diff import diff_packs
from ofp_platform.registry.history import check
from ofp_platform.registry.models import Pack
from ofp_platform.storage.feature_readers import FeatureReaders, TooManyReaders
from ofp_platform.storage.pack_operations import last_build_rate
from ofp_platform.vocabulary.catalogue import CatalogueReader
from ofp_platform.vocabulary.pack_plan import GroupChange, PackPlan, PlanEstimate, PlannedGroup
from ofp_platform.vocabulary.position import make_basis
from ofp_platform.vocabulary.times import format_time

Readers = Mapping[tuple[str, str], Sequence[CatalogueReader]]
_SAMPLE_RECORDS = 20_000
_SAMPLE_BYTES = 64 << 20
_STATE = ("chunk", "span", "tail", "identity_segment", "identity_page", "identity_filter")


class PlanRefused(Exception):
    """The pack cannot be planned here, or the plan is of another one; the text says why and what to do."""


def plan_pack(plane: Plane, pack: Pack, fold: HistoryFold | None, *, planned_at: int) -> PackPlan:
    """The plan of a pack for the live projection of the plane's run. Nothing is written.

    Args:
        fold: what a part of the records is folded with where no build was measured here yet; None: no rate then.
        planned_at: microseconds.

    Raises:
        PlanRefused: the run has no live projection. RegistryRefused: the pack redefines a published group version.
    """
    live = plane.live()
    if live is None:
        raise PlanRefused(
            f"run {plane.profile.context_pins.run_id!r} of stream {plane.profile.stream_name!r} has no live projection to hold a"
            " pack against: the first one is made of the profile's pack (`ofp projector run`)"
        )
    try:
        readers: Readers | None = FeatureReaders(plane.objects, plane.pool, live.pins).of_groups(live.registry_digest)
    except TooManyReaders:
        readers = None
    before, after = plane.registry_of(live), compile_pack(pack)
    with plane.pool.connection() as connection:
        if refusals := check(published_groups(connection), pack):
            raise RegistryRefused("\n".join(str(refusal) for refusal in refusals))
        estimate = _estimate(plane, connection, live, before, after, fold)
    return PackPlan(
        stream_name=live.stream_name,
        context_pins=live.pins,
        run_config_digest=plane.profile.run_config_digest,
        live_projection=live.projection_id,
        live_registry=before.digest,
        new_registry=after.digest,
        pack_id=pack.pack_id,
        revision=pack.revision,
        changed_events=diff_packs(before.pack, pack).changed_events,
        groups=_groups(before, after, live.watermark, readers or {}),
        basis=live.basis,
        readers_known=readers is not None,
        estimate=estimate,
        planned_at_utc=format_time(planned_at),
    )


def _groups(
    before: CompiledRegistry, after: CompiledRegistry, watermark: int | None, readers: Readers
) -> tuple[PlannedGroup, ...]:
    groups = []
    for ref in sorted(before.groups.keys() | after.groups.keys()):
        if ref not in after.groups:
            change = GroupChange.REMOVED
        else:
            change = GroupChange.KEPT if ref in before.groups else GroupChange.ADDED
        group = (before if change is GroupChange.REMOVED else after).groups[ref]
        comes = change is GroupChange.ADDED
        old_versions = sorted(version for name, version in before.groups.keys() - after.groups.keys() if name == ref[0])
        groups.append(
            PlannedGroup(
                group_name=ref[0],
                group_version=ref[1],
                key_type=group.key_type,
                change=change,
                replaces=tuple(old_versions) if comes else (),
                features=len(group.features) + len(group.on_demand),
                reach_us=group.reach,
                folded_from_utc=None if watermark is None or not comes else format_time(max(0, watermark - group.reach)),
                read_by=tuple(readers.get(ref, ())),
            )
        )
    return tuple(groups)


def _estimate(
    plane: Plane,
    connection: Connection[Any],
    live: ProjectionRow,
    before: CompiledRegistry,
    after: CompiledRegistry,
    fold: HistoryFold | None,
) -> PlanEstimate:
    live_records = sum(part.records for part in read_progress(connection, live.projection_id).partitions)
    records = live_records + sum(plane.log.ordinal_lag(live.basis).values())
    columns = [sum(layout.column_count for layout in registry.layouts.values()) for registry in (before, after)]
    state = sum(_bytes(connection, table, live.projection_id) for table in _STATE)
    rate, subject = last_build_rate(plane.pool, live.stream_name, live.pins), "the last build of a pack here"
    if rate is None:
        rate, subject = _fold_rate(plane, live, after, fold)
    return PlanEstimate(records=records, state_bytes=state * columns[1] // columns[0], records_per_second=rate, measured=subject)


def _bytes(connection: Connection[Any], table: str, projection_id: int) -> int:
    """Bytes of a projection's rows in a table; of a large table a sample of its pages is read."""
    name = sql.Identifier("ofp", table)
    size = connection.execute("SELECT pg_table_size(%s)", (f"ofp.{table}",)).fetchone()
    assert size is not None
    percent = min(100.0, 100.0 * _SAMPLE_BYTES / max(1, size[0]))
    row = connection.execute(
        sql.SQL(
            "SELECT coalesce(sum(pg_column_size(part)), 0) FROM {} AS part TABLESAMPLE SYSTEM (%s) REPEATABLE (1)"
            " WHERE projection_id = %s"
        ).format(name),
        (percent, projection_id),
    ).fetchone()
    assert row is not None
    return int(row[0] * 100 / percent)


def _fold_rate(plane: Plane, live: ProjectionRow, registry: CompiledRegistry, fold: HistoryFold | None) -> tuple[int | None, str]:
    """Records a second of reading, routing and sorting the first records, which a build does too, before it writes."""
    if fold is None:
        return None, "nothing: no build of a pack was measured here yet"
    for part in live.basis.partitions:
        batch = plane.archived_log.read(part.partition_id, None, _SAMPLE_RECORDS)
        if not len(batch):
            continue
        basis = make_basis(live.stream_name, {part.partition_id: batch.next})
        start = time.perf_counter()
        fold(registry, live.pins, basis, [])
        seconds = time.perf_counter() - start
        return max(1, round(len(batch) / seconds)), f"a fold of the first {len(batch)} records, without what a build writes"
    return None, "nothing: no record was applied yet"
