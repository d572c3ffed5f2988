"""Sealed worlds: what a world is made of, output by output and file by file, and the seal that closes it for good."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.model import Digest, Model, Name, Time
from ofp_platform.vocabulary.serving import Version

WORLD_NAME_PATTERN = "^[a-z][a-z0-9_-]{0,62}$"
WorldName = Annotated[str, Field(pattern=WORLD_NAME_PATTERN, description="name of a world: a-z, 0-9, _ and -")]
_Rows = Annotated[int, Field(ge=1)]


class OutputRole(StrEnum):
    """The role of an output: what is decided on, who and what stands behind it, or what turned out to be true.

    The first two are streamed. Truth is read by the loader of labels, and by nobody else.
    """

    BUSINESS_TRAFFIC = "business_traffic"
    BEHAVIOURAL_CONTEXT = "behavioural_context"
    TRUTH = "truth"


class WorldFile(Model):
    """A Parquet file: its path in the folder of the world, the SHA-256 of its bytes, and what is in it."""

    path: Annotated[str, Field(pattern=r"^stream_view/[a-z][a-z0-9_]{0,62}/part-[0-9]{5}\.parquet$")]
    digest: Digest
    byte_count: _Rows
    rows: _Rows
    first_ts_utc: Time
    last_ts_utc: Time


class WorldOutput(Model):
    """Rows of one kind, in files of which each begins where the one before ended, in the order of `ts_utc`."""

    output: Name
    role: OutputRole = Field(strict=False)
    files: tuple[WorldFile, ...] = Field(strict=False)

    @property
    def rows(self) -> int:
        """Of all files."""
        return sum(file.rows for file in self.files)


class SourceFile(Model):
    """A file that a world was made from: its name without folders, and the SHA-256 of its bytes."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    digest: Digest


class WorldMaker(Model):
    """Who made a world, and from what: the same maker, parameters and sources give the same rows."""

    maker: Literal["payments", "rings", "handbook", "table"]
    parameters: Mapping[str, JsonValue]
    sources: tuple[SourceFile, ...] = Field(default=(), strict=False)


class WorldManifest(Model):
    """All of a world but its seal, outputs in the order of their names."""

    kind: Literal["world_manifest"] = "world_manifest"
    contract_version: Version = "v0"
    world: WorldName
    maker: WorldMaker
    outputs: tuple[WorldOutput, ...] = Field(strict=False, min_length=1)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        names = [item.output for item in self.outputs]
        if names != sorted(set(names)):
            raise ValueError("outputs must each be named once, in the order of their names")
        for item in self.outputs:
            expected_paths = [f"stream_view/{item.output}/part-{number:05d}.parquet" for number in range(len(item.files))]
            if [file.path for file in item.files] != expected_paths:
                raise ValueError(f"the files of {item.output} are not {expected_paths}")
        return self

    def wire(self) -> dict[str, Any]:
        """As stored."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical bytes of it all: the name of the content of a world."""
        return digest_of(self.wire())

    @property
    def rows(self) -> int:
        """Of all outputs."""
        return sum(item.rows for item in self.outputs)


class WorldSeal(Model):
    """The last object of a world, written once: from here on the world is what the manifest of that digest says."""

    kind: Literal["world_seal"] = "world_seal"
    contract_version: Version = "v0"
    world: WorldName
    manifest_digest: Digest

    def wire(self) -> dict[str, Any]:
        """As stored."""
        return self.model_dump(mode="json")
