"""One flipped byte anywhere in archive, snapshot or dataset: whether the verification that users call finds it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from ofp_platform.log.archive_verify import verify_partition
from ofp_platform.offline.datasets.dataset_verification import verify_dataset
from ofp_platform.offline.datasets.publication import DatasetDamaged, DatasetNotFound, load_manifest
from ofp_platform.online.ranges.snapshot_sets import damaged_objects
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.storage.snapshot_records import place_in_pack, snapshot_path
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.offline.dataset_manifest import manifest_path
from ofp_platform_tests.torture.byte_identity.world import World

Finds = Callable[[], bool]
_NOT_FOUND = "not found"
_CUTS = 12  # truncations of each object, besides the empty one
_SNAPSHOTS = 4  # objects of one snapshot each


@dataclass(frozen=True)
class Target:
    """One stored object, and the verification that looks at it: True when something is wrong."""

    kind: str
    path: Path
    finds: Finds


@dataclass
class Found:
    """What was done to the objects of one kind, what of it nobody found, and what ended the verification by another error
    than those that it names. `examples`: (object, what was done and what came of it) of the two."""

    flips: int = 0
    missed: int = 0
    crashed: int = 0
    cuts: int = 0
    cuts_missed: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)


def targets(world: World) -> list[Target]:
    """Objects of every kind."""
    objects = world.labelled.objects
    root, archived = objects.folder, world.archive.store.folder
    assert root is not None  # local folders
    assert archived is not None
    plane, archive, manifest = world.labelled.plane, world.archive, world.manifest
    found = []
    span = archive.spans("0000", plane.log.position_kind.offset_kind)[-1]

    def partition_is_wrong() -> bool:
        return bool(verify_partition(archive, "0000", plane.log.position_kind.offset_kind).problems)

    found.append(Target("archive segment", archived / archive.segment_path(span), partition_is_wrong))
    found.append(Target("archive receipt", archived / archive.receipt_path(span), partition_is_wrong))
    store = SnapshotStore(plane.pool, objects)
    filled = next(one for one in world.sets if one.entries)
    for _, _, name in filled.entries[:_SNAPSHOTS]:
        found.append(Target("stored snapshot", root / snapshot_path(name), _unreadable(store, [name])))
    with plane.pool.connection() as connection:
        rows = connection.execute("SELECT snapshot_hash, reference FROM ofp.snapshot_index").fetchall()
    packed = {name: place for name, reference in rows if (place := place_in_pack(reference)) is not None}
    pack = next(iter(packed.values())).path
    found.append(Target("snapshot pack", root / pack, _unreadable(store, sorted(packed))))
    found.append(
        Target("snapshot set", root / filled.index_path, lambda: bool(damaged_objects(plane, objects, filled.index_path)))
    )

    def dataset_is_wrong() -> bool:
        try:
            published = load_manifest(objects, manifest.dataset_name, manifest.dataset_identity)
        except (DatasetDamaged, DatasetNotFound):
            return True
        return bool(verify_dataset(objects, published))

    found += [Target("dataset file", root / file.path, dataset_is_wrong) for file in manifest.files]
    path = manifest_path(manifest.dataset_name, manifest.dataset_identity)
    found.append(Target("dataset manifest", root / path, dataset_is_wrong))
    return found


def flip_all(chosen: Sequence[Target], flips: int, rng: random.Random) -> Found:
    """Flip `flips` bytes of objects of one kind, one at a time: every byte once if they suffice, then any.

    Each object is also cut short and made one byte longer. All are as they were afterwards.

    Raises:
        AssertionError: the verification says that an untouched object is wrong.
    """
    tally = Found()
    sizes = [target.path.stat().st_size for target in chosen]
    places = [(number, position) for number, size in enumerate(sizes) for position in range(size)]
    order = rng.sample(places, min(flips, len(places)))
    order += rng.choices(places, k=flips - len(order))
    by_target: dict[int, list[int]] = {}
    for number, position in order:
        by_target.setdefault(number, []).append(position)
    for number, target in enumerate(chosen):
        assert not target.finds(), f"{target.path} is said to be wrong as it was written"
        whole = target.path.read_bytes()
        try:
            seen: set[int] = set()
            for position in by_target.get(number, []):
                # one bit at the first visit of a byte, any change at the later ones
                mask = rng.randrange(1, 256) if position in seen else 1 << rng.randrange(8)
                seen.add(position)
                damaged = whole[:position] + bytes([whole[position] ^ mask]) + whole[position + 1 :]
                tally.flips += 1
                if came := _came_of(target, damaged):
                    tally.missed += came == _NOT_FOUND
                    tally.crashed += came != _NOT_FOUND
                    tally.examples.append((target.path.name, f"byte {position} xor {mask:#04x}: {came}"))
            for what, damaged in _cuts(whole, rng):
                tally.cuts += 1
                if came := _came_of(target, damaged):
                    tally.cuts_missed += 1
                    tally.examples.append((target.path.name, f"{what}: {came}"))
        finally:
            target.path.write_bytes(whole)
        assert not target.finds(), f"{target.path} is said to be wrong after it was restored"
    return tally


@contextmanager
def without_digests() -> Iterator[None]:
    """The guard taken away: whatever digest is asked for, the stored one is equal to it."""
    with (
        mock.patch("ofp_platform.log.archive_store.sha256_hex", _equal),
        mock.patch("ofp_platform.offline.datasets.publication.sha256_hex", _equal),
        mock.patch("ofp_platform.storage.snapshot_records.sha256_hex", _equal),
        mock.patch("ofp_platform.storage.snapshot_records.sha256", return_value=SimpleNamespace(digest=_equal)),
    ):
        yield


class _Equal(str):
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


def _equal(data: bytes = b"") -> str:
    return _Equal("0" * 64)


def _came_of(target: Target, damaged: bytes) -> str:
    """What the verification makes of a damaged object: empty when it says so."""
    target.path.write_bytes(damaged)
    try:
        return "" if target.finds() else _NOT_FOUND
    except Exception as error:  # not how damage is told
        return f"{type(error).__name__}: {error}"


def _cuts(whole: bytes, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    lengths = {0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(_CUTS))}
    for length in sorted(lengths):
        yield f"cut to {length} bytes", whole[:length]
    yield "one byte appended", whole + bytes([rng.randrange(256)])
    yield "its last byte appended again", whole + whole[-1:]


def _unreadable(store: SnapshotStore, names: Sequence[str]) -> Finds:
    def any_is() -> bool:
        try:
            for name in names:
                store.load(name)
        except ContractError:
            return True
        return False

    return any_is
