"""The catalogue: definitions of feature groups in words and in fields, and who reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ofp_platform.vocabulary.identity import ContextPins, KeyType
from ofp_platform.vocabulary.model import Digest, Model, Name
from ofp_platform.vocabulary.serving import Count, FeatureDefinitionSet, GroupVersion, Version

Prose = Annotated[str, Field(max_length=1000, description="in words; no part of any digest")]
Owner = Annotated[
    str,
    Field(
        pattern=r"^(team:[A-Za-z0-9_-]{1,100}|[A-Za-z0-9][A-Za-z0-9._+-]{0,63}@[A-Za-z0-9][A-Za-z0-9.-]{0,62})$",
        description="team:NAME or an address; no part of any digest",
    ),
]
Tags = Annotated[tuple[Name, ...], Field(strict=False, max_length=32, description="for searches; no part of any digest")]


class CatalogueOperand(Model):
    """One aggregation over events: which, of which field, under which conditions, over which window."""

    aggregation: str
    events: tuple[str, ...] = Field(strict=False)
    value: str | None = None
    paired_with: str | None = None
    p: str | None = None
    condition: dict[str, tuple[str | int | bool, ...]] | None = None
    n: int | None = None
    category: str | None = None
    k: int | None = None
    where: dict[str, tuple[str | int | bool, ...]] = Field(default_factory=dict)
    window: str | None = Field(default=None, description="as in 24h; absent: all that lies before")
    delay: str = "0s"


class CatalogueFeature(Model):
    """One feature. A windowed one has `definition`, a ratio `denominator` too; one on demand has `expression`."""

    name: Name
    type: str = Field(description="integer, boolean, string, decimal(scale), or a list, as in list of string")
    definition: CatalogueOperand | None = None
    denominator: CatalogueOperand | None = None
    expression: str | None = None
    description: Prose = ""
    owner: str | None = Field(default=None, description="its own, else the group's")
    tags: Tags = ()


class CatalogueReader(Model):
    """Somebody who reads a group: a published dataset, the rule of recorded decisions, or a trained model."""

    kind: Literal["dataset", "decision_rule", "bundle", "model"]
    name: str
    reference: str = Field(description="identity of the dataset, digest of the rule, path of the lineage")


class CatalogueGroup(Model):
    """One group version with its features in the order of their names."""

    group_name: Name
    group_version: GroupVersion
    key_type: KeyType = Field(strict=False)
    ttl_seconds: Count
    content_digest: Digest
    description: Prose = ""
    owner: str | None = None
    tags: Tags = ()
    features: tuple[CatalogueFeature, ...] = Field(strict=False)
    request_context: dict[str, str]
    read_by: tuple[CatalogueReader, ...] = Field(default=(), strict=False)


class Catalogue(Model):
    """The groups of a registry. `readers_known`: whether all datasets and models were looked at, and the newest decisions."""

    kind: Literal["ofp_catalogue"] = "ofp_catalogue"
    contract_version: Version = "v0"
    context_pins: ContextPins
    feature_definition_set: FeatureDefinitionSet
    pack_description: str
    groups: tuple[CatalogueGroup, ...] = Field(strict=False)
    readers_known: bool
