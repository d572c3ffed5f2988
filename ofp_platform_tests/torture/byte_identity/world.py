"""A fixed small world, from its log to a dataset, and every digest that it has.

`python -m ofp_platform_tests.torture.byte_identity.world DSN FOLDER` makes it in a migrated, empty database and a folder
that exists, and prints {"digests": ..., "surroundings": ...} as JSON. The digests must be the same wherever it is run. The
surroundings must not: they are made in ways that the plane avoids, from the order of a set, the local time and the locale, and
show that the environment of the process was really another.
"""

from __future__ import annotations

import json
import locale
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numba

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.log.archive import archive_up_to
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.offline.datasets.publication import load_manifest
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.runs.builder import build
from ofp_platform.online.ranges.snapshot_sets import HOUR, SnapshotSet, last_full_hour, materialise_hour
from ofp_platform.online.serving.served_batches import make_batch
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import SHIPPED_PACKS, group_digests, shipped_pack
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.canonical import canonical_bytes, digest_of, jcs_bytes, sha256_hex
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.oracle.labelled_plane import LabelledPlane

_HOURS = 4
_SEGMENTS = 100_000  # records: one segment for each partition
RELEASE = "bytes"  # not the installed one: another Python runs the sources as they are
GROUPS = {"account": ("account_activity", "v1"), "merchant": ("merchant_activity", "v1")}
_AWKWARD = {
    "€": 1e21,
    "a": [0.1, -0.0, 5e-324, 1.5e300, 1 / 3],
    "A": "İıßſ\u2028",
    "\U0001f600": {"z": None, "b": True},
    "\ufb33": 1,
}
"""A payload whose RFC 8785 bytes hang on number formatting and on the order of UTF-16 code units."""


@dataclass(frozen=True)
class World:
    """What was made. `archive`: where segments and receipts lie, one segment for each partition."""

    labelled: LabelledPlane
    row: ProjectionRow
    archive: Archive
    answers: tuple[Answer, ...]
    sets: tuple[SnapshotSet, ...]
    manifest: DatasetManifest


def make_world(dsn: str, folder: Path, *, workers: int = 2) -> World:
    """Fill the log, archive, project, serve, materialise, build. The caller closes the plane."""
    labelled = LabelledPlane.prepare(dsn, folder)
    plane, objects = labelled.plane, labelled.objects
    # a store of its own: what `prepare` archived lies in small segments
    archive = Archive(ObjectStore(f"file://{folder}/archive"), plane.log.stream_name)
    archive_up_to(OffsetRanges(plane.pool, plane.log, _SEGMENTS), archive, plane.log.ends())
    row = plane.ensure_live()
    projector = plane.projector(row)
    while projector.apply_available(max_records=100) is not None:
        pass
    row = plane.row(row.projection_id)
    hour = last_full_hour(row)
    if hour is None:
        raise RuntimeError("nothing was projected")
    sets = tuple(materialise_hour(plane, row, objects, hour - number * HOUR) for number in range(_HOURS))
    reader = plane.reader(row)
    keys = sorted({(kind, name) for one in sets for kind, name, _ in one.entries if kind in GROUPS})
    answers = tuple(
        reader.answer(
            canonical_bytes(
                {
                    "context_pins": row.pins.wire(),
                    "feature_keys": [{"key_type": kind, "key_id": name}],
                    "feature_groups": [{"group_name": GROUPS[kind][0], "group_version": GROUPS[kind][1]}],
                    "as_of_time_utc": format_time(hour + number * 601_000_003),
                }
            )
        )
        for kind, name in keys
        for number in range(_HOURS)
    )
    SnapshotStore(plane.pool, objects).log(answers)
    build_context = BuildContext(plane.pool, plane.log, objects, folder / "builds", workers, RELEASE)
    run = build(build_context, build_context.ledger.submit(labelled.intent()).run_key)
    if run.outcome is None:
        raise RuntimeError(f"the dataset was not built: {run.refusal}")
    manifest = load_manifest(objects, run.outcome["dataset_name"], run.outcome["dataset_identity"])
    return World(labelled, row, archive, answers, sets, manifest)


def digests(world: World) -> dict[str, str]:
    """Every digest of the world, by what it is of."""
    objects = world.labelled.objects
    found = {f"object {path}": sha256_hex(objects.get(path)) for path in objects.list()}
    found |= {f"alone {path}": sha256_hex(world.archive.store.get(path)) for path in world.archive.store.list()}
    found |= {f"served {number}": answer.hash for number, answer in enumerate(world.answers)}
    found |= {f"snapshot set {one.hour_start}": one.index_digest for one in world.sets}
    for name in sorted(SHIPPED_PACKS):
        registry = compile_pack(shipped_pack(name))
        found[f"registry {name}"] = registry.digest
        found |= {f"group {name} {group} {version}": one for (group, version), one in group_digests(registry.pack).items()}
    payloads = [value for batch in world.labelled.batches() for value in batch.payload_hashes]
    found["payload hashes"] = sha256_hex(b"".join(payloads))
    found["content"] = world.manifest.content_digest
    found["identity"] = world.manifest.dataset_identity
    found["manifest"] = world.manifest.digest
    found["request"] = world.manifest.request_id
    found["run config"] = world.row.run_config_digest
    found["run facts"] = world.manifest.run_facts.digest
    found["pack"] = make_batch(world.answers)[0]
    found["canonical"] = sha256_hex(jcs_bytes(_AWKWARD))
    found["bodies"] = digest_of([sha256_hex(answer.body) for answer in world.answers])
    return found


def surroundings() -> dict[str, str]:
    """What the plane must not depend on, as this process has it."""
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "set order": sha256_hex(repr([*{f"key-{number}" for number in range(64)}]).encode()),
        # in winter and in summer
        "local time": " ".join(time.strftime("%Y-%m-%dT%H:%M%z", time.localtime(at)) for at in (1_767_225_600, 1_782_777_600)),
        "decimal point": str(locale.localeconv()["decimal_point"]),
        "locale": str(locale.setlocale(locale.LC_NUMERIC)),
        "optimised": str(not __debug__),
        "threads": str(numba.get_num_threads()),
    }


def main() -> None:
    """See the module."""
    locale.setlocale(locale.LC_ALL, "")  # what a program does that speaks the user's language; Python alone does not
    world = make_world(sys.argv[1], Path(sys.argv[2]), workers=int(os.environ.get("OFP_TEST_WORKERS", "2")))
    try:
        print(json.dumps({"digests": digests(world), "surroundings": surroundings()}))
    finally:
        world.labelled.plane.close()


if __name__ == "__main__":
    main()
