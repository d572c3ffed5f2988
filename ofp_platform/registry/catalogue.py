"""The catalogue of a pack: each group and feature as it is defined, with words that are no part of its meaning. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.layout import CompiledFeature
from ofp_platform.registry.models import Feature, Group, OnDemand, Operand, Pack
from ofp_platform.registry.pack import group_digests, pack_digest
from ofp_platform.vocabulary.catalogue import (
    Catalogue,
    CatalogueFeature,
    CatalogueGroup,
    CatalogueOperand,
    CatalogueReader,
)
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.serving import FeatureDefinitionSet

Readers = Mapping[tuple[str, str], Sequence[CatalogueReader]]


def catalogue(
    registry: CompiledRegistry, pins: ContextPins, readers: Readers | None = None, words: Pack | None = None
) -> Catalogue:
    """The catalogue of a registry, groups by name and version.

    `readers`: by group; None: nobody looked. `words`: a pack whose descriptions, owners and tags count, where it means the same:
    a published pack keeps those that it had first.
    """
    pack = words if words is not None and pack_digest(words) == registry.digest else registry.pack
    digests = group_digests(pack)
    groups = sorted(pack.groups, key=lambda group: (group.name, group.version))
    return Catalogue(
        context_pins=pins,
        feature_definition_set=FeatureDefinitionSet(pack_id=pack.pack_id, revision=pack.revision, digest=registry.digest),
        pack_description=pack.description,
        groups=tuple(
            CatalogueGroup(
                group_name=group.name,
                group_version=group.version,
                key_type=group.key_type,
                ttl_seconds=group.ttl_seconds,
                content_digest=digests[group.name, group.version],
                description=group.description,
                owner=group.owner,
                tags=group.tags,
                features=_features(registry, group),
                request_context={name: kind.value for name, kind in sorted(group.request.items())},
                read_by=tuple((readers or {}).get((group.name, group.version), ())),
            )
            for group in groups
        ),
        readers_known=readers is not None,
    )


def _features(registry: CompiledRegistry, group: Group) -> tuple[CatalogueFeature, ...]:
    compiled_group = registry.groups[group.name, group.version]
    types = {feature.name: type_words(feature) for feature in compiled_group.features}
    window_features = (_window_feature(feature, types[feature.name], group) for feature in group.features)
    on_demand = (_on_demand(feature, group) for feature in group.on_demand)
    return tuple(sorted((*window_features, *on_demand), key=lambda feature: feature.name))


def type_words(feature: CompiledFeature) -> str:
    """The type of a windowed feature's value: integer, boolean, string, decimal(scale), or a list of them."""
    if feature.has_numbers:
        return f"list of {{category: {feature.value_type.value}, value: integer}}"
    if feature.is_list:
        return f"list of {feature.value_type.value}"
    return feature.value_type.value if feature.scale is None else f"decimal({feature.scale})"


def _window_feature(feature: Feature, value_type: str, group: Group) -> CatalogueFeature:
    if feature.numerator is not None and feature.denominator is not None:
        definition, denominator = _operand(feature.numerator, feature), _operand(feature.denominator, feature)
    else:
        definition, denominator = _operand(feature, feature), None
    return CatalogueFeature(
        name=feature.name,
        type=value_type,
        definition=definition,
        denominator=denominator,
        description=feature.description,
        owner=feature.owner or group.owner,
        tags=feature.tags,
    )


def _on_demand(feature: OnDemand, group: Group) -> CatalogueFeature:
    return CatalogueFeature(
        name=feature.name,
        type=f"decimal({feature.scale})",
        expression=feature.expression,
        description=feature.description,
        owner=feature.owner or group.owner,
        tags=feature.tags,
    )


def _operand(part: Feature | Operand, feature: Feature) -> CatalogueOperand:
    """An operand in full: what a side of a ratio does not say is the feature's."""
    return CatalogueOperand(
        aggregation=part.aggregation.value,
        events=part.events or (),
        value=part.value,
        paired_with=part.paired_with,
        p=part.p,
        condition=None if part.condition is None else dict(part.condition),
        n=part.n if isinstance(part, Feature) else None,
        category=part.category if isinstance(part, Feature) else None,
        k=part.k if isinstance(part, Feature) else None,
        where=dict(part.where),
        window=part.window or feature.window,
        delay=part.delay or feature.delay,
    )


def sentence(operand: CatalogueOperand) -> str:
    """An operand in one line, as in `sum of amount_minor over card_payment in 30d`."""
    text = operand.aggregation + (f" {operand.p}" if operand.p is not None else "")
    text += f" (n = {operand.n})" if operand.n is not None else ""
    text += f" of {operand.value}" if operand.value is not None else ""
    text += f" and {operand.paired_with}" if operand.paired_with is not None else ""
    text += f" by {operand.category} (k = {operand.k})" if operand.category is not None else ""
    text += f" of {_conditions(operand.condition)}" if operand.condition is not None else ""
    text += f" over {', '.join(operand.events)}"
    if operand.where:
        text += f" where {_conditions(operand.where)}"
    if operand.window is not None:
        text += f" in {'the ' if ' ' in operand.window else ''}{operand.window}"
    return text + (f", {operand.delay} late" if operand.delay.strip("0usmhd") else "")


def _conditions(conditions: Mapping[str, Sequence[object]]) -> str:
    return " and ".join(f"{name} is {' or '.join(map(str, values))}" for name, values in sorted(conditions.items()))


def definition(feature: CatalogueFeature) -> str:
    """A feature's definition in one line."""
    if feature.definition is None:
        return f"{feature.expression}, on demand"
    text = sentence(feature.definition)
    return text if feature.denominator is None else f"{text} / {sentence(feature.denominator)}"
