"""A new registry beside the live one: build its projection, compare it by hash, make it live.

The live projection is frozen for a comparison by a snapshot of the store, and the new one is brought to exactly its basis; the
live one goes on meanwhile. The switch holds the live row for the moment that the last records take, so that the basis
that is served never goes back.
"""

from __future__ import annotations

from dataclasses import dataclass

from ofp_platform.online.plane import Plane
from ofp_platform.online.projecting.apply_until import apply_until
from ofp_platform.online.projecting.projector import ApplyReceipt
from ofp_platform.online.ranges.comparison import KEYS_PER_TYPE, Comparison, compare
from ofp_platform.online.state.projection import ProjectionRow, make_live, read_projection
from ofp_platform.online.state.store_snapshot import store_snapshot
from ofp_platform.vocabulary.position import Basis, place


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
        """Whether the groups that both have serve the same."""
        return self.comparison is not None and self.comparison.equal


def rebuild(plane: Plane, *, keys_per_type: int = KEYS_PER_TYPE) -> RebuildReceipt:
    """Build the projection of the profile's pack up to the live one's basis, and compare the two there.

    Raises:
        RegistryRefused: the pack redefines a published group version.
        RebuildRefused: the log does not lead to the live one's basis (it was trimmed: build from the archive).
    """
    live = plane.ensure_live()
    beside = plane.open_beside()
    if beside.projection_id == live.projection_id:
        return RebuildReceipt(live, beside, 0, 0, None)
    _demand_whole_log(plane, beside)
    # the long way first, without holding a snapshot of the store open
    receipts = apply_until(plane.projector(beside), plane.row(live.projection_id).basis, plane.profile.batch_records)
    with store_snapshot(plane.pool) as (connection, pool):
        live = read_projection(connection, live.projection_id)
        receipts += _bring_to(plane, beside, live.basis)
        beside = plane.row(beside.projection_id)
        comparison = compare(plane, (live, pool), (beside, plane.pool), keys_per_type=keys_per_type)
    return RebuildReceipt(
        live=live,
        beside=beside,
        records=sum(receipt.records for receipt in receipts),
        applied=sum(receipt.applied for receipt in receipts),
        comparison=comparison,
    )


def switch_live(plane: Plane, registry_digest: str) -> RebuildReceipt:
    """Compare once more and make the projection of that registry live; the one that was live is retired.

    Raises:
        RebuildRefused: another registry than the profile's, or the two differ.
    """
    receipt = rebuild(plane)
    if receipt.beside.registry_digest != registry_digest:
        raise RebuildRefused(
            f"the profile's pack is registry {receipt.beside.registry_digest}, asked for was {registry_digest}: what was"
            " compared is not what would go live"
        )
    if receipt.unchanged:
        return receipt
    if not receipt.may_go_live:
        assert receipt.comparison is not None
        raise RebuildRefused(
            f"projection {receipt.beside.projection_id} differs from the live one in {len(receipt.comparison.differences)} or"
            " more values of groups that both have; it stays beside"
        )
    with plane.pool.connection() as connection, connection.transaction():
        live = read_projection(connection, receipt.live.projection_id, for_update=True)  # nobody commits to it meanwhile
        _bring_to(plane, receipt.beside, live.basis)
        beside = plane.row(receipt.beside.projection_id)
        make_live(connection, beside.projection_id, beside.version)
    return RebuildReceipt(live, plane.row(beside.projection_id), receipt.records, receipt.applied, receipt.comparison)


def _demand_whole_log(plane: Plane, beside: ProjectionRow) -> None:
    """Refuse a projection that would begin behind records that left the log: it would lack them without a word.

    Raises:
        RebuildRefused: see above.
    """
    known_parts = beside.basis.by_partition()
    for floor in plane.log.retention_floor().partitions:
        if place(known_parts.get(floor.partition_id)) < place(floor):
            raise RebuildRefused(
                f"partition {floor.partition_id} of log {plane.log.stream_name} is kept from offset {floor.offset} on, and"
                f" projection {beside.projection_id} needs records before it: the archive has them, a projection cannot be built"
                " from it yet"
            )


def _bring_to(plane: Plane, beside: ProjectionRow, basis: Basis) -> list[ApplyReceipt]:
    """Apply up to exactly that basis."""
    receipts = apply_until(plane.projector(beside), basis, plane.profile.batch_records)
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
