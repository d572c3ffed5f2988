"""Publish races: several publishers of one object or of one dataset, and somebody who looks while they are at it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from ofp_platform.offline.datasets.publication import (
    DatasetNotFound,
    LocalFile,
    load_manifest,
    name_files,
    publish_files,
    publish_manifest,
    verify_files,
)
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest, manifest_path
from ofp_platform_tests.oracle.manifests import NAME, a_manifest
from ofp_platform_tests.torture.two_of_everything.contenders import WAIT_SECONDS, Contenders, meet, store_of

Guard = Literal["kept", "overwriting", "manifest first"]
KINDS = ("object, same bytes", "object, other bytes", "dataset, same data", "dataset, other data", "dataset, other request")
FILES, ROWS = 2, 5
BATCH = 200  # races per task: a race alone is shorter than handing it over
WATCHED = "whole"


@dataclass(frozen=True)
class Race:
    """One race: its name, which is where it is run, and what the contenders differ in."""

    name: str
    kind: str

    @property
    def identity(self) -> str:
        """The identity of the dataset that is raced for: that of a manifest made by a release of the race's own."""
        return a_manifest().model_copy(update={"ofs_code_release_id": self.name}).derived_identity

    @property
    def object_path(self) -> str:
        """The object that is raced for."""
        return f"objects/{self.name}"


@dataclass
class Tally:
    """Races by kind, those in which the check found something, and what it found first."""

    races: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    first: str = ""
    watched: int = 0

    @property
    def tried(self) -> int:
        """All races."""
        return sum(self.races.values())


def publish_races(
    contenders: Contenders,
    url: str,
    folder: Path,
    count: int,
    rng: random.Random,
    *,
    endpoint: str | None = None,
    guard: Guard = "kept",
    kinds: Sequence[str] = KINDS,
) -> Tally:
    """Run `count` races at the store, as many of each kind. `folder`: for the files that are published."""
    objects = ObjectStore(url, endpoint=endpoint)
    tally = Tally()
    races = [Race(f"{rng.getrandbits(64):016x}", kinds[number % len(kinds)]) for number in range(count)]
    for begin in range(0, count, BATCH):
        batch = races[begin : begin + BATCH]
        given = [(url, endpoint, str(folder), batch, number, guard) for number in range(contenders.count)]
        outcomes = contenders.race(contend, given)
        for place, race in enumerate(batch):
            said = [outcome[place] for outcome in outcomes]
            problem = _problem(objects, race, said, folder)
            tally.races[race.kind] = tally.races.get(race.kind, 0) + 1
            tally.failed += problem != ""
            tally.first = tally.first or (f"{race.kind}: {problem}" if problem else "")
            tally.watched += WATCHED in said
    return tally


def contend(url: str, endpoint: str | None, folder: str, races: list[Race], number: int, guard: Guard) -> list[str]:
    """What contender `number` saw of each race: what was published for it, or the name of what refused it."""
    objects = store_of(url, endpoint, guard != "overwriting")
    found = []
    for place, race in enumerate(races):
        meet()
        try:
            if race.kind.startswith("object"):
                content = _object_content(race, number)
                found.append("created" if objects.put_if_absent(race.object_path, content) else "there")
            elif (number + place) % 3 == 0:
                found.append(_watch(objects, race))
            else:
                found.append(_publish(objects, race, number, Path(folder), guard))
        except BuildRefused as refused:
            found.append(refused.reason.value)
        except Exception as error:  # whatever else ends a contender is told, not raised: the others wait for it at the next race
            found.append(f"{type(error).__name__}: {error}")
    return found


def _publish(objects: ObjectStore, race: Race, number: int, folder: Path, guard: Guard) -> str:
    """Publish as a builder does; the digest of the manifest that it is told is published."""
    variant = _variant(race, number)
    source = _files(folder, variant)
    manifest = _manifest(race, number, folder)
    if guard == "manifest first":
        objects.put_if_absent(manifest_path(NAME, race.identity), manifest.encoded())
    publish_files(objects, manifest.files, source)
    return publish_manifest(objects, manifest).digest


def _watch(objects: ObjectStore, race: Race) -> str:
    """Look until there is a dataset, and then at all of it at once."""
    until = time.monotonic() + WAIT_SECONDS / 2
    while time.monotonic() < until:
        try:
            manifest = load_manifest(objects, NAME, race.identity)
        except DatasetNotFound:
            continue
        problems = verify_files(objects, manifest)
        return problems[0] if problems else WATCHED
    return "nothing was published"


def _problem(objects: ObjectStore, race: Race, said: list[str], folder: Path) -> str:
    """What is wrong with the end of a race; empty when one won and the others converged or were refused."""
    if race.kind.startswith("object"):
        if said.count("created") != 1 or said.count("there") != len(said) - 1:
            return f"of one object the writers were told {said}"
        winner = said.index("created")
        return "" if objects.get(race.object_path) == _object_content(race, winner) else "the object is not the winner's"
    try:
        stored = load_manifest(objects, NAME, race.identity)
    except DatasetNotFound:
        return f"nothing is published; the publishers were told {said}"
    if problems := verify_files(objects, stored):
        return problems[0]
    publishers = {number: one for number, one in enumerate(said) if not _watches(one)}
    winners = [number for number in publishers if _manifest(race, number, folder).content_digest == stored.content_digest]
    if not winners:
        return "what is published is nobody's"
    for number, one in publishers.items():
        expected = stored.digest if number in winners else BuildReason.PUBLICATION_CONFLICT.value
        if one != expected:
            return f"publisher {number} was told {one!r} instead of {expected!r}"
    wrong = [one for one in said if _watches(one) and one != WATCHED]
    return wrong[0] if wrong else ""


def _watches(said: str) -> bool:
    """Whether that was said by who looked: a publisher is told a digest or a reason."""
    return said not in {reason.value for reason in BuildReason} and len(said) != 64


def _object_content(race: Race, number: int) -> bytes:
    return f"{race.name} {number if race.kind.endswith('other bytes') else 'same'}".encode() * 20


def _variant(race: Race, number: int) -> int:
    return number if race.kind == "dataset, other data" else 0


def _manifest(race: Race, number: int, folder: Path) -> DatasetManifest:
    """The manifest that this contender would publish."""
    variant = _variant(race, number)
    source = _files(folder, variant)
    files = [LocalFile(source / f"part-{part:05d}.parquet", ROWS) for part in range(FILES)]
    asked = {"request_id": digest_of(number)} if race.kind == "dataset, other request" else {}
    return a_manifest().model_copy(
        update={
            "dataset_identity": race.identity,
            "ofs_code_release_id": race.name,
            "files": name_files(NAME, race.identity, files),
            "content_digest": digest_of(["content", variant]),
            **asked,
        }
    )


@cache
def _files(folder: Path, variant: int) -> Path:
    """The built files of a variant, written by whoever needs them first (all would write the same)."""
    made = folder / f"variant-{variant}"
    made.mkdir(parents=True, exist_ok=True)
    for part in range(FILES):
        path = made / f"part-{part:05d}.parquet"
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_bytes(f"{variant} {part} ".encode() * 200)
        partial.replace(path)
    return made
