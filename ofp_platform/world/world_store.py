"""Worlds in the object store: written, sealed, checked, listed, and read. The layout is that of `oracle/<world>/`.

Files come first, then the manifest, then the seal: what has no seal is no world yet, and nothing is ever written twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from re import ASCII, fullmatch
from typing import TypeVar

import pyarrow as pa
from pydantic import BaseModel, ValidationError

from ofp_platform.storage.objects import ObjectConflict, ObjectNotFound, ObjectStore
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.world import (
    WORLD_NAME_PATTERN,
    OutputRole,
    WorldFile,
    WorldMaker,
    WorldManifest,
    WorldOutput,
    WorldSeal,
)
from ofp_platform.vocabulary.yaml_file import fault_words
from ofp_platform.world.world_rows import (
    EVENT_SCHEMA,
    TRUTH_SCHEMA,
    WorldFault,
    file_faults,
    read_rows,
    sorted_files,
    texts,
)

FOLDER = "oracle"
_MANIFEST, _SEAL = "manifest.json", "seal.json"
Kind = TypeVar("Kind", bound=BaseModel)


@dataclass(frozen=True)
class OutputRows:
    """The rows of an output before they are written, in any number of parts; of the schema of its role."""

    role: OutputRole
    parts: Sequence[pa.Table]


def write_world(objects: ObjectStore, name: str, maker: WorldMaker, outputs: Mapping[str, OutputRows]) -> WorldManifest:
    """Write files and manifest of a world. The same world written again changes nothing; it is not sealed by that.

    Raises:
        WorldFault: a name that is none, no rows at all, or another world of that name is there.
        ObjectStoreUnavailable: the store does not work; the same call may be made again.
    """
    _checked_name(name)
    if not sum(len(part) for rows in outputs.values() for part in rows.parts):
        raise WorldFault(f"world {name}: there is no row to write")
    written_outputs: list[WorldOutput] = []
    try:
        for output, rows in sorted(outputs.items()):
            files = []
            for file, content in sorted_files(output, rows.parts, schema_of(rows.role)):
                objects.put_same(f"{FOLDER}/{name}/{file.path}", content)
                files.append(file)
            written_outputs.append(WorldOutput(output=output, role=rows.role, files=tuple(files)))
        manifest = WorldManifest(world=name, maker=maker, outputs=tuple(written_outputs))
        objects.put_same(f"{FOLDER}/{name}/{_MANIFEST}", canonical_bytes(manifest.wire()))
    except ObjectConflict as conflict:
        raise WorldFault(f"world {name}: another world of that name is there, and a world never changes: {conflict}") from None
    return manifest


def seal_world(objects: ObjectStore, name: str) -> tuple[WorldSeal, bool]:
    """Seal a world, if all of it is as its manifest says; the seal, and whether this call wrote it.

    Raises:
        WorldFault: no manifest, files that are not as it says, or a seal of another manifest.
        ObjectStoreUnavailable: see there.
    """
    manifest = _read_manifest(objects, name)
    if faults := _faults_of(objects, manifest):
        raise WorldFault(f"world {name} is not sealed:\n" + "\n".join(f"  {fault}" for fault in faults))
    seal = WorldSeal(world=name, manifest_digest=manifest.digest)
    try:
        return seal, objects.put_same(_path(name, _SEAL), canonical_bytes(seal.wire()))
    except ObjectConflict:
        raise WorldFault(
            f"world {name} carries another seal: manifest and seal are not of one world; restore both from a backup"
        ) from None


@dataclass(frozen=True)
class WorldVerification:
    """The result of looking at all of a world. `faults`: in words, each with its object; none, and it is as it was sealed."""

    world: str
    manifest: WorldManifest | None
    seal: WorldSeal | None
    faults: tuple[str, ...]


def verify_world(objects: ObjectStore, name: str) -> WorldVerification:
    """Look at seal, manifest, every file and every row's place; a world without a seal has a fault.

    Raises:
        ObjectStoreUnavailable: see there.
    """
    faults: list[str] = []
    manifest: WorldManifest | None = None
    seal: WorldSeal | None = None
    try:
        seal = _read(objects, name, _SEAL, WorldSeal)
    except WorldFault as fault:
        faults.append(str(fault))
    try:
        manifest = _read_manifest(objects, name)
    except WorldFault as fault:
        faults.append(str(fault))
    if seal is not None and (seal.world != name or (manifest is not None and seal.manifest_digest != manifest.digest)):
        faults.append(f"{_SEAL}: seals {seal.world} with manifest {seal.manifest_digest}, not this one")
    if manifest is not None:
        faults += _faults_of(objects, manifest)
    return WorldVerification(name, manifest, seal, tuple(faults))


def list_worlds(objects: ObjectStore) -> list[tuple[str, WorldManifest | None, WorldSeal | None]]:
    """All worlds by name, with manifest and seal where they can be read; the files are not looked at."""
    worlds = []
    for name in objects.folders(FOLDER):
        manifest: WorldManifest | None = None
        seal: WorldSeal | None = None
        with suppress(WorldFault):
            manifest = _read_manifest(objects, name)
        with suppress(WorldFault):
            seal = _read(objects, name, _SEAL, WorldSeal)
        worlds.append((name, manifest, seal))
    return worlds


@dataclass(frozen=True)
class World:
    """A sealed world. Each file is held to its digest whenever it is read."""

    objects: ObjectStore
    manifest: WorldManifest
    seal: WorldSeal

    def events(self, output: str) -> Iterator[pa.Table]:
        """The events of an output in their order, a table of EVENT_SCHEMA for each file.

        Raises:
            WorldFault: no such output, one of truth, or a file that is not as it was sealed.
        """
        item = self._output(output)
        if item.role is OutputRole.TRUTH:
            raise WorldFault(f"world {self.manifest.world}: {output} is truth: it is read by the loader of labels alone")
        for file in item.files:
            yield self._table(file, EVENT_SCHEMA)

    def truth(self) -> Iterator[LabelAssertion]:
        """The assertions of all outputs of truth, for the label store.

        Raises:
            WorldFault: there is no truth in it, or a file is not as it was sealed.
        """
        outputs = [item for item in self.manifest.outputs if item.role is OutputRole.TRUTH]
        if not outputs:
            raise WorldFault(f"world {self.manifest.world} holds no truth: its outputs are {self._names()}")
        for item in outputs:
            for file in item.files:
                for text in texts(self._table(file, TRUTH_SCHEMA), "assertion"):
                    try:
                        yield LabelAssertion.model_validate_json(text)
                    except ValidationError as error:
                        raise WorldFault(
                            f"{self.manifest.world}/{file.path}: a row is no label assertion: {_first(error)}"
                        ) from None

    def _output(self, name: str) -> WorldOutput:
        for item in self.manifest.outputs:
            if item.output == name:
                return item
        raise WorldFault(f"world {self.manifest.world} has no output {name}; its outputs are {self._names()}")

    def _names(self) -> str:
        return ", ".join(f"{item.output} ({item.role})" for item in self.manifest.outputs)

    def _table(self, file: WorldFile, schema: pa.Schema) -> pa.Table:
        content = _bytes(self.objects, self.manifest.world, file)
        if faults := ["is not there"] if content is None else file_faults(file, content, schema):
            raise WorldFault(f"world {self.manifest.world} is not as it was sealed: {faults[0]}")
        assert content is not None
        return read_rows(content, schema)


def open_world(objects: ObjectStore, name: str) -> World:
    """A sealed world.

    Raises:
        WorldFault: there is none of that name, it has no seal, or seal and manifest are not of one world.
        ObjectStoreUnavailable: see there.
    """
    manifest = _read_manifest(objects, name)
    seal = _read(objects, name, _SEAL, WorldSeal)
    if seal.world != name or seal.manifest_digest != manifest.digest:
        raise WorldFault(f"world {name}: its seal is of manifest {seal.manifest_digest}, and the manifest is {manifest.digest}")
    return World(objects, manifest, seal)


def schema_of(role: OutputRole) -> pa.Schema:
    """The columns of an output's files."""
    return TRUTH_SCHEMA if role is OutputRole.TRUTH else EVENT_SCHEMA


def _faults_of(objects: ObjectStore, manifest: WorldManifest) -> list[str]:
    """Faults against the manifest: files, the order of rows across files, and objects that it does not name."""
    name = manifest.world
    faults: list[str] = []
    for item in manifest.outputs:
        newest = ""
        for file in item.files:
            content = _bytes(objects, name, file)
            faults += [f"{file.path}: is not there"] if content is None else file_faults(file, content, schema_of(item.role))
            if file.first_ts_utc < newest:
                faults.append(f"{file.path}: begins at {file.first_ts_utc}, before the end of the file in front of it")
            newest = max(newest, file.last_ts_utc)
    named_paths = {_path(name, file.path) for item in manifest.outputs for file in item.files}
    there = set(objects.list(f"{FOLDER}/{name}")) - {_path(name, _MANIFEST), _path(name, _SEAL)}
    faults += [f"{path.removeprefix(_path(name, ''))}: is not named by the manifest" for path in sorted(there - named_paths)]
    return faults


def _bytes(objects: ObjectStore, name: str, file: WorldFile) -> bytes | None:
    try:
        return objects.get(_path(name, file.path))
    except ObjectNotFound:
        return None


def _read_manifest(objects: ObjectStore, name: str) -> WorldManifest:
    manifest = _read(objects, name, _MANIFEST, WorldManifest)
    if manifest.world != name:
        raise WorldFault(f"{_MANIFEST}: is of world {manifest.world}, not of {name}")
    return manifest


def _read(objects: ObjectStore, name: str, file: str, kind: type[Kind]) -> Kind:
    _checked_name(name)
    try:
        content = objects.get(_path(name, file))
    except ObjectNotFound:
        if file == _SEAL:
            raise WorldFault(f"world {name} is not sealed: `ofp world seal {name}` seals what `ofp world make` wrote") from None
        raise WorldFault(f"there is no world {name} in {objects.url} (no {file}): `ofp world list` shows what is there") from None
    try:
        value = kind.model_validate_json(content)
    except ValidationError as error:
        raise WorldFault(f"{FOLDER}/{name}/{file}: is not what it should be: {_first(error)}") from None
    if canonical_bytes(value.model_dump(mode="json")) != content:
        raise WorldFault(f"{FOLDER}/{name}/{file}: is not the canonical text of what it says: somebody else wrote it")
    return value


def _checked_name(name: str) -> None:
    if fullmatch(WORLD_NAME_PATTERN, name, ASCII) is None:
        raise WorldFault(f"{name!r} is no name of a world: a-z, 0-9, _ and -, a letter first, 63 characters at most")


def _path(name: str, file: str) -> str:
    return f"{FOLDER}/{name}/{file}"


def _first(error: ValidationError) -> str:
    return fault_words(error, "the object")[0]
