"""The class map: which event types a run takes, of which class, in which schema versions and payloads, and its stream.

A feature pack implies one. A profile may name a file of its own instead, by its digest: then payloads can have JSON Schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import jsonschema_rs
from pydantic import Field, JsonValue, model_validator

from ofp_platform.registry.models import FIRST_SCHEMA_VERSIONS, Pack, event_class
from ofp_platform.vocabulary.canonical import jcs_bytes, sha256_hex
from ofp_platform.vocabulary.envelope import EventType, SchemaVersion
from ofp_platform.vocabulary.identity_link import LINK, UNLINK
from ofp_platform.vocabulary.model import Model
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.serving import Version
from ofp_platform.vocabulary.yaml_file import YamlFault, load_yaml


class ClassMapError(Exception):
    """A class map cannot be used; the text says what is wrong and where."""


class MappedType(Model):
    """One event type: its class, the versions that are taken, and its stream. `payload_schemas`: the JSON Schema (draft 2020-12)
    of the payload, by version; a version without one takes any payload.
    """

    event_class: EventType
    schema_versions: tuple[SchemaVersion, ...] = Field(strict=False, min_length=1)
    stream: Literal["traffic", "context"]
    payload_schemas: Mapping[SchemaVersion, Mapping[str, JsonValue]] = {}

    @model_validator(mode="after")
    def _of_its_versions(self) -> Self:
        if unknown_versions := sorted(set(self.payload_schemas) - set(self.schema_versions)):
            raise ValueError(f"payload_schemas names {unknown_versions[0]}, which is not among schema_versions")
        return self


class ClassMap(Model):
    """All event types of a run. An event of any other type, version or payload is set aside. `partition_key`: of traffic, where
    the file says it; it must be that of the profile.
    """

    kind: Literal["class_map"] = "class_map"
    contract_version: Version = "v0"
    partition_key: str | None = None
    events: Mapping[Annotated[str, EventType], MappedType]

    def wire(self) -> dict[str, Any]:
        """As stored: what is absent is left out."""
        content = self.model_dump(mode="json", exclude_none=True)
        for mapped_type in content["events"].values():
            if not mapped_type["payload_schemas"]:
                del mapped_type["payload_schemas"]
        return content

    def stored(self) -> bytes:
        """The RFC 8785 bytes of it all."""
        return jcs_bytes(self.wire())

    @cached_property
    def digest(self) -> str:
        """SHA-256 over `stored`."""
        return sha256_hex(self.stored())

    @cached_property
    def validators(self) -> dict[tuple[str, str], Any]:
        """The validator of each payload schema, by event type and version. No schema is fetched from anywhere.

        Raises:
            ClassMapError: a schema is none, or refers to one that is not in it.
        """
        validators: dict[tuple[str, str], Any] = {}
        for event_type, mapped_type in self.events.items():
            for version, schema in mapped_type.payload_schemas.items():
                try:
                    # the linear engine: no pattern of a file makes one payload cost seconds
                    validators[event_type, version] = jsonschema_rs.validator_for(
                        dict(schema), offline=True, pattern_options=jsonschema_rs.RegexOptions()
                    )
                except ValueError as error:
                    first_line = str(error).splitlines()[0]
                    raise ClassMapError(f"events.{event_type}.payload_schemas.{version}: {first_line}") from None
        return validators


def class_map_of(pack: Pack, *, has_context: bool) -> ClassMap:
    """The class map that a feature pack implies: its event types and those of their amendments, and links where a run has
    a stream of them."""
    events = {
        name: MappedType(
            event_class=event_class(pack.events, name), schema_versions=tuple(sorted(routing.schema_versions)), stream="traffic"
        )
        for name, routing in pack.events.items()
    }
    for routing in pack.events.values():
        for name in () if routing.amendments is None else routing.amendments.by:
            versions = tuple(sorted(routing.schema_versions))
            events.setdefault(name, MappedType(event_class=name, schema_versions=versions, stream="traffic"))
    if has_context:
        for name in (LINK, UNLINK):
            events[name] = MappedType(event_class=name, schema_versions=tuple(sorted(FIRST_SCHEMA_VERSIONS)), stream="context")
    return ClassMap(events=dict(sorted(events.items())))


def class_map_in_force(profile: Profile, pack: Pack) -> ClassMap:
    """The class map of a profile: the file that it names, held to its digest and to the pack, or what the pack implies.

    Raises:
        ClassMapError: see `load_class_map`; another digest, or it contradicts the pack or the profile.
    """
    implied_map = class_map_of(pack, has_context=profile.context_stream is not None)
    if profile.class_map is None:
        return implied_map
    path = Path(profile.class_map.file)
    class_map = load_class_map(path)
    if class_map.digest != profile.class_map.digest:
        raise ClassMapError(
            f"{path}: has the digest {class_map.digest}, the profile names {profile.class_map.digest}: if the change is wanted,"
            " the profile names the new one, and its runs are others"
        )
    if class_map.partition_key not in (None, profile.partition_key):
        raise ClassMapError(f"{path}: partition_key: the profile says {profile.partition_key}")
    for name, implied_type in implied_map.events.items():
        mapped_type = class_map.events.get(name)
        if mapped_type is None:
            raise ClassMapError(f"{path}: events: lacks {name}, which the pack {pack.pack_id} reads")
        if (mapped_type.event_class, mapped_type.stream) != (implied_type.event_class, implied_type.stream):
            raise ClassMapError(
                f"{path}: events.{name}: the pack {pack.pack_id} says class {implied_type.event_class} of {implied_type.stream}"
            )
    return class_map


def load_class_map(path: Path) -> ClassMap:
    """Read and validate a file, schemas included.

    Raises:
        ClassMapError: no such file, not YAML, or a field that is wrong; the text names file and field.
    """
    try:
        class_map = load_yaml(path, ClassMap)
        class_map.stored()
    except YamlFault as error:
        raise ClassMapError(str(error)) from None
    except (ValueError, TypeError) as error:
        raise ClassMapError(f"{path}: not I-JSON: {error}") from None
    try:
        _ = class_map.validators
    except ClassMapError as error:
        raise ClassMapError(f"{path}: {error}") from None
    return class_map
