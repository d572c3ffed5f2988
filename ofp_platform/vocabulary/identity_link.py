"""Links between entities: what the events of the context stream say, and the ids that observed identifiers have."""

from __future__ import annotations

from hashlib import sha256
from typing import Literal, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey, KeyId, KeyType
from ofp_platform.vocabulary.model import Model, Time
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.serving import GraphVersion, IdentityConflict, Version

LINK, UNLINK = "identity_link", "identity_unlink"
"""The event types of the context stream that say who belongs to whom."""
_MINTED_DIGITS = 32


class IdentityLinkPayload(Model):
    """The payload of an `identity_link` or `identity_unlink`: from its effective time on, the member belongs to the canonical
    entity, or does not any more.
    """

    key_type: KeyType = Field(strict=False)
    member: KeyId
    canonical: KeyId
    effective_time_utc: Time
    evidence: str | None = Field(default=None, max_length=256, description="where it is known from; for people")

    @model_validator(mode="after")
    def _of_two(self) -> Self:
        if self.member == self.canonical:
            raise ValueError("member and canonical are one entity")
        return self


class LinkOfEntity(Model):
    """A link in force. `counts`: whether it joins the two; it does not where it is part of a conflict."""

    member: KeyId
    canonical: KeyId
    effective_time_utc: Time
    counts: bool


class EntityProfile(Model):
    """The entity of a key at a time, by one version of the graph."""

    kind: Literal["ieg_entity_profile"] = "ieg_entity_profile"
    contract_version: Version = "v0"
    context_pins: ContextPins
    graph_version: GraphVersion
    as_of_time_utc: Time
    key: FeatureKey
    canonical_id: KeyId = Field(description="of the entity: what its members are linked to")
    members: tuple[KeyId, ...] = Field(strict=False, description="sorted, the canonical id among them")
    conflicts: tuple[IdentityConflict, ...] = Field(strict=False, description="links that touch a member and do not count")
    neighbours: tuple[LinkOfEntity, ...] = Field(strict=False, description="links in force of the key itself")


def minted_id(key_type: KeyType, id_type: str, id_token: str) -> str:
    """The id of the entity that an observed identifier is, where no engine gave it one. `id_token`: a token, never the number."""
    digest = sha256(f"{id_type}|{id_token}".encode()).hexdigest()
    return f"e_{key_type.value}_{digest[:_MINTED_DIGITS]}"


def graph_version_of(basis: Basis) -> GraphVersion:
    """The version of the graph that knows these records of the context stream: its name follows from them."""
    content = {"basis": basis.model_dump(mode="json"), "contract_version": "v0"}
    name = f"g_{digest_of(content)[:_MINTED_DIGITS]}"
    return GraphVersion(graph_version=name, stream_name=basis.stream_name, basis=basis.partitions)
