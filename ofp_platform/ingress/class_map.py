"""The class map: which event types a run takes, of which class, in which schema versions, and to which stream each goes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field

from ofp_platform.registry.models import FIRST_SCHEMA_VERSIONS, Pack, event_class
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.envelope import EventType, SchemaVersion
from ofp_platform.vocabulary.identity_link import LINK, UNLINK
from ofp_platform.vocabulary.model import Model
from ofp_platform.vocabulary.serving import Version


class MappedType(Model):
    """One event type: its class, the versions that are taken, and its stream."""

    event_class: EventType
    schema_versions: tuple[SchemaVersion, ...] = Field(strict=False, min_length=1)
    stream: Literal["traffic", "context"]


class ClassMap(Model):
    """All event types of a run. An event of any other type, or version, is set aside."""

    kind: Literal["class_map"] = "class_map"
    contract_version: Version = "v0"
    events: Mapping[Annotated[str, EventType], MappedType]

    def wire(self) -> dict[str, Any]:
        """As stored."""
        return self.model_dump(mode="json")

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the canonical bytes of it all."""
        return digest_of(self.wire())


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
