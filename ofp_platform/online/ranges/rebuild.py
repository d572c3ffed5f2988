"""A new registry beside the live one: build its projection, compare it by hash, make it live.

It is folded from the first record of each partition on: out of the archive as far as the log does not go back.

The live projection is frozen for a comparison by a snapshot of the store, and the new one is brought to exactly its basis; the
live one goes on meanwhile. The switch holds the live row for the moment that the last records take, so that the basis
that is served never goes back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from psycopg import Connection

from ofp_platform.online.plane import Plane
from ofp_platform.online.projecting.apply_until import apply_until
from ofp_platform.online.projecting.projector import ApplyReceipt, Projector
from ofp_platform.online.ranges.comparison import KEYS_PER_TYPE, Comparison, HistoryFold, compare
from ofp_platform.online.state.progress import read_progress
from ofp_platform.online.state.projection import ProjectionRow, make_live, read_projection, tell_of_switch
from ofp_platform.online.state.store_snapshot import store_snapshot
from ofp_platform.vocabulary.position import Basis, place

_ROUNDS = 3


class RebuildRefused(Exception):
    """The projection beside the live one may not become live; the text says why."""


@dataclass(frozen=True)
class RebuildReceipt:
    """One build. `beside` is the live projection itself, and nothing was compared, when the profile's pack is live."""

    live: ProjectionRow
    beside: ProjectionRow
    records: int
    applied: int
    comparison: Comparison | None

    @property
    def unchanged(self) -> bool:
        """Whether the profile's pack is the live one, so that there is nothing to build."""
        return self.live.projection_id == self.beside.projection_id

    @property
    def may_go_live(self) -> bool:
        """Whether every group was compared and serves what it should."""
        return self.comparison is not None and self.comparison.equal


def rebuild(
    plane: Plane,
    fold: HistoryFold | None = None,
    *,
    beside: ProjectionRow | None = None,
    keys_per_type: int = KEYS_PER_TYPE,
    on_commit: Callable[[ApplyReceipt], None] = lambda receipt: None,
) -> RebuildReceipt:
    """Build the projection of the profile's pack up to the live one's basis, and compare the two there.

    `fold` as of `compare`. `beside`: another projection of the run, instead of that of the profile's pack. `on_commit` is told
    of each commit on the way.

    Raises:
        RegistryRefused: the pack redefines a published group version.
        RebuildRefused: log and archive do not lead to the live one's basis, or they hold fewer records than it took.
        LogError: neither log nor archive has the first records, or some after them.
        SegmentMissing | SegmentDamaged | ReceiptDamaged | ObjectStoreUnavailable: what the archive has against it.
    """
    live = plane.ensure_live()
    beside = plane.open_beside() if beside is None else beside
    if beside.projection_id == live.projection_id:
        return RebuildReceipt(live, beside, 0, 0, None)
    # the long way first, without holding a snapshot of the store open
    live_basis = plane.row(live.projection_id).basis
    projector = plane.projector(beside)
    receipts = apply_until(projector, live_basis, plane.profile.batch_records, on_commit)
    with store_snapshot(plane.pool, live.projection_id) as (connection, pool):
        live = read_projection(connection, live.projection_id)
        receipts += _bring_to(plane, projector, beside, live.basis)
        beside = plane.row(beside.projection_id)
        _demand_as_many(plane, connection, live, beside)
        comparison = compare(plane, (live, pool), (beside, plane.pool), fold, keys_per_type=keys_per_type)
    return RebuildReceipt(
        live=live,
        beside=beside,
        records=sum(receipt.records for receipt in receipts),
        applied=sum(receipt.applied for receipt in receipts),
        comparison=comparison,
    )


def switch_live(
    plane: Plane,
    registry_digest: str,
    fold: HistoryFold | None = None,
    *,
    beside: ProjectionRow | None = None,
    on_switch: Callable[[Connection[Any], RebuildReceipt], None] = lambda connection, receipt: None,
) -> RebuildReceipt:
    """Compare once more and make the projection of that registry live; the one that was live is retired.

    `beside` as of `rebuild`. `on_switch`: called in the transaction of the switch.

    Raises:
        RebuildRefused: another registry than the profile's, or something differs or was not compared.
        as `rebuild`.
    """
    receipt = rebuild(plane, fold, beside=beside)
    if receipt.beside.registry_digest != registry_digest:
        raise RebuildRefused(
            f"the profile's pack is registry {receipt.beside.registry_digest}, asked for was {registry_digest}: what was"
            " compared is not what would go live"
        )
    if receipt.unchanged:
        return receipt
    if not receipt.may_go_live:
        assert receipt.comparison is not None
        raise RebuildRefused(f"projection {receipt.beside.projection_id} {reason_against(receipt.comparison)}; it stays beside")
    projector = plane.projector(receipt.beside)
    # what came during the comparison, so that little is left to do while nobody commits; and by then the projector knows what a
    # new one would read first
    for _ in range(_ROUNDS):
        apply_until(projector, plane.row(receipt.live.projection_id).basis, plane.profile.batch_records)
    with plane.pool.connection() as connection:
        with connection.transaction():
            live = read_projection(connection, receipt.live.projection_id, for_update=True)  # nobody commits to it meanwhile
            _bring_to(plane, projector, receipt.beside, live.basis)
            beside = plane.row(receipt.beside.projection_id)
            make_live(connection, beside.projection_id, beside.version)
            switch_receipt = replace(receipt, live=live, beside=read_projection(connection, beside.projection_id))
            on_switch(connection, switch_receipt)
        tell_of_switch(connection)
    return switch_receipt


def reason_against(comparison: Comparison) -> str:
    """Why the projection beside may not go live, in words that follow its name."""
    if comparison.differences:
        return f"differs from the live one in {len(comparison.differences)} or more values of groups that both have"
    if comparison.wrong:
        return f"serves something else than the records say, in new groups: {', '.join(comparison.wrong)}"
    return (
        f"was compared in nothing of {', '.join(comparison.not_compared)}: equal because nothing was compared is not equal."
        " Nothing was applied yet, or nobody folded the records again for groups that are new"
    )


def _demand_as_many(plane: Plane, connection: Connection[Any], live: ProjectionRow, beside: ProjectionRow) -> None:
    """Refuse a projection that was given fewer records up to the same basis than the live one took.

    Raises:
        RebuildRefused: see above; and nothing was applied, where the log has records.
    """
    live_records = {part.partition_id: part.records for part in read_progress(connection, live.projection_id).partitions}
    with plane.pool.connection() as own_connection:
        beside_records = {
            part.partition_id: part.records for part in read_progress(own_connection, beside.projection_id).partitions
        }
    for name, records in sorted(live_records.items()):
        count = beside_records.get(name, 0)
        if count < records:
            raise RebuildRefused(
                f"projection {beside.projection_id} was given {count} records of partition {name}, the live one took"
                f" {records} up to the same basis: log and archive of {plane.log.stream_name} hold no more all of them"
            )
    if not live_records and any(not part.is_at_start for part in plane.log.ends().partitions):
        raise RebuildRefused(
            f"projection {live.projection_id} is live and has applied nothing of log {plane.log.stream_name}, which has records:"
            " there is nothing to compare with. Let it catch up first (`ofp projector run`)"
        )


def _bring_to(plane: Plane, projector: Projector, beside: ProjectionRow, basis: Basis) -> list[ApplyReceipt]:
    """Apply up to exactly that basis."""
    receipts = apply_until(projector, basis, plane.profile.batch_records)
    reached_basis = plane.row(beside.projection_id).basis
    if not _same_place(reached_basis, basis):
        raise RebuildRefused(
            f"projection {beside.projection_id} cannot stand where the live one stands: log {plane.log.stream_name}"
            " no longer leads there, or something else applies to it"
        )
    return receipts


def _same_place(basis: Basis, other: Basis) -> bool:
    """Equal bases, partition by partition. That a shard ended, one of them may not have seen yet."""
    places = {name: place(part) for name, part in basis.by_partition().items() if place(part) >= 0}
    other_places = {name: place(part) for name, part in other.by_partition().items() if place(part) >= 0}
    return places == other_places
