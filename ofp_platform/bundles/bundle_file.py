"""bundle.yaml, beside a pack: what is asked about an event and which rules hold; with a trained model it becomes a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from ofp_platform.bundles.compatibility import mask_faults
from ofp_platform.bundles.operand_types import UNDECLARED, OperandKind, OperandType, comparison_fault, feature_type, field_type
from ofp_platform.bundles.trained_model import TrainedModel
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.models import EventRouting
from ofp_platform.vocabulary.envelope import EventType
from ofp_platform.vocabulary.identity import KeySource, KeyType
from ofp_platform.vocabulary.loop.bundle import Bundle, Comparison, Guardrail, Provenance
from ofp_platform.vocabulary.loop.exact_model import ExactModel, FeatureInput, FieldName, PayloadInput
from ofp_platform.vocabulary.model import Model, Name
from ofp_platform.vocabulary.observed_keys import observed_type
from ofp_platform.vocabulary.serving import FeatureDefinitionSet, FeatureGroupRef
from ofp_platform.vocabulary.yaml_file import YamlFault, fault_words, model_of, read_yaml

SHIPPED_BUNDLES = ("card_payments", "handbook")
"""By the id of the pack whose groups they ask for."""


class BundleFileError(Exception):
    """The file makes no bundle on this pack; the text names file and field of each fault."""


class BundleFile(Model):
    """The file. `undeclared_fields`: payload fields that are read though the pack says nothing of them."""

    name: Name
    event_type: EventType
    key_fields: dict[Annotated[KeyType, Field(strict=False)], KeySource] = Field(min_length=1)
    groups: tuple[FeatureGroupRef, ...] = Field(strict=False, min_length=1)
    optional_groups: tuple[FeatureGroupRef, ...] = Field(default=(), strict=False)
    context_fields: tuple[FieldName, ...] = Field(default=(), strict=False)
    undeclared_fields: tuple[FieldName, ...] = Field(default=(), strict=False)
    guardrails: tuple[Guardrail, ...] = Field(default=(), strict=False)


def bundle_source(source: str) -> Path:
    """The file of a shipped bundle, by its name, or of one's own, by its path."""
    if source in SHIPPED_BUNDLES:
        return Path(str(resources.files("ofp_platform.bundles").joinpath("files", f"{source}.yaml")))
    return Path(source)


def read_bundle_file(path: Path) -> BundleFile:
    """Read and validate the file by itself.

    Raises:
        BundleFileError: no such file, not YAML, or a field that is wrong.
    """
    try:
        content = read_yaml(path)
        if (place := _float_in(content)) is not None:
            raise BundleFileError(f"{path}: {place}: is a float, which is not exact: write a decimal as a text, as in '0.50'")
        return model_of(path, content, BundleFile)
    except YamlFault as error:
        raise BundleFileError(str(error)) from None


def make_bundle(
    path: Path, bundle_file: BundleFile, registry: CompiledRegistry, trained_model: TrainedModel | None = None
) -> Bundle:
    """The bundle of a file on a pack. `path`: as messages call it.

    Raises:
        BundleFileError: the pack has not what is read, or not of a type that can be; or the bundle cannot keep a mask.
    """
    faults = list(_faults(bundle_file, registry, None if trained_model is None else trained_model.model))
    if faults:
        raise BundleFileError("\n".join(f"{path}: {words}" for words in faults))
    pack = registry.pack
    try:
        bundle = Bundle(
            bundle_name=bundle_file.name,
            event_type=bundle_file.event_type,
            key_fields=bundle_file.key_fields,
            groups=bundle_file.groups,
            optional_groups=bundle_file.optional_groups,
            context_fields=bundle_file.context_fields,
            feature_definition_set=FeatureDefinitionSet(pack_id=pack.pack_id, revision=pack.revision, digest=registry.digest),
            guardrails=bundle_file.guardrails,
            model=None if trained_model is None else trained_model.bundle_model,
            provenance=Provenance() if trained_model is None else trained_model.provenance,
        )
    except ValidationError as error:
        raise BundleFileError("\n".join(f"{path}: {words}" for words in fault_words(error, "the file"))) from None
    if unkept_masks := mask_faults(bundle, registry):
        raise BundleFileError("\n".join(f"{path}: {words}" for words in unkept_masks))
    return bundle


def _float_in(content: Any, place: str = "") -> str | None:
    """Where a float stands, if any does."""
    if isinstance(content, float):
        return place or "the file"
    children: list[tuple[Any, Any]] = []
    if isinstance(content, dict):
        children = list(content.items())
    elif isinstance(content, list):
        children = list(enumerate(content))
    for name, child in children:
        if (below := _float_in(child, f"{place}.{name}" if place else str(name))) is not None:
            return below
    return None


def _faults(bundle_file: BundleFile, registry: CompiledRegistry, model: ExactModel | None) -> Iterator[str]:
    routing = registry.pack.events.get(bundle_file.event_type)
    if routing is None:
        known_types = ", ".join(sorted(registry.pack.events))
        yield f"event_type: pack {registry.pack.pack_id} has no {bundle_file.event_type}; it has {known_types}"
        return
    yield from _group_faults(bundle_file, registry)
    yield from _key_faults(bundle_file, registry, routing)
    yield from _context_faults(bundle_file, registry, routing)
    for field in bundle_file.undeclared_fields:
        if field_type(routing, field) is not None:
            yield f"undeclared_fields: the pack declares {field}"
    for index, rule in enumerate(bundle_file.guardrails):
        for place, comparison in enumerate(rule.all_of):
            fault = _comparison_fault(bundle_file, registry, routing, comparison)
            if fault is not None:
                yield f"guardrails.{index}.all_of.{place}.{fault}"
    if model is not None:
        yield from _input_faults(bundle_file, registry, routing, model)


def _group_faults(bundle_file: BundleFile, registry: CompiledRegistry) -> Iterator[str]:
    for name, groups in (("groups", bundle_file.groups), ("optional_groups", bundle_file.optional_groups)):
        if len(set(map(_id_of, groups))) < len(groups):
            yield f"{name}: a group is named twice"
    for index, group in enumerate(bundle_file.groups):
        if _id_of(group) not in registry.groups:
            yield f"groups.{index}: pack {registry.pack.pack_id} has no group {group.group_name} {group.group_version}"


def _key_faults(bundle_file: BundleFile, registry: CompiledRegistry, routing: EventRouting) -> Iterator[str]:
    key_types = {registry.groups[_id_of(group)].key_type for group in bundle_file.groups if _id_of(group) in registry.groups}
    named_types = {key_type.value for key_type in bundle_file.key_fields}
    for key_type in sorted(key_types - named_types):
        yield f"key_fields: names no field with the {key_type}, of which a group is"
    for key_type in sorted(named_types - key_types):
        yield f"key_fields.{key_type}: no group that is asked for is of a {key_type}"
    for kind, source in bundle_file.key_fields.items():
        if observed_type(source) is not None:
            if source not in routing.keys.values():
                yield f"key_fields.{kind.value}: the pack makes no key of {source}"
            continue
        type_of_source = _payload_type(bundle_file, routing, source)
        if type_of_source is None:
            yield f"key_fields.{kind.value}: {_not_declared(bundle_file, source)}"
        elif type_of_source.kind not in (OperandKind.STRING, OperandKind.ANY):
            yield f"key_fields.{kind.value}: {source} is a {type_of_source.kind}, and a key is a string"


def _context_faults(bundle_file: BundleFile, registry: CompiledRegistry, routing: EventRouting) -> Iterator[str]:
    read: dict[str, str] = {}
    for group in bundle_file.groups:
        if _id_of(group) in registry.groups:
            read |= dict(registry.groups[_id_of(group)].request_fields)
    for field in sorted(read.keys() - set(bundle_file.context_fields)):
        yield f"context_fields: lack {field}, which a group reads on demand"
    for field in bundle_file.context_fields:
        type_of_field = _payload_type(bundle_file, routing, field)
        if field not in read:
            yield f"context_fields: no group that is asked for reads {field}"
        elif type_of_field is None:
            yield f"context_fields: {_not_declared(bundle_file, field)}"
        elif read[field] == "integer" and type_of_field.kind not in (OperandKind.NUMBER, OperandKind.ANY):
            yield f"context_fields: {field} is a {type_of_field.kind}, and the group reads an integer"


def _comparison_fault(
    bundle_file: BundleFile, registry: CompiledRegistry, routing: EventRouting, comparison: Comparison
) -> str | None:
    if comparison.feature is not None:
        operand = comparison.feature
        group = operand.group_name, operand.group_version
        operand_type = feature_type(registry, group, operand.feature)
        feature_name = f"{' '.join(group)} {operand.feature}"
        if group not in set(map(_id_of, bundle_file.groups)):
            return f"feature: {' '.join(group)} is not among the groups"
        if operand_type is None:
            return f"feature: pack {registry.pack.pack_id} has no {feature_name}"
        fault = comparison_fault(operand_type, comparison)
        return None if fault is None else f"feature: {feature_name} {fault}"
    assert comparison.field is not None
    operand_type = _payload_type(bundle_file, routing, comparison.field)
    if operand_type is None:
        return f"field: {_not_declared(bundle_file, comparison.field)}"
    fault = comparison_fault(operand_type, comparison)
    return None if fault is None else f"field: {comparison.field} {fault}"


def _input_faults(bundle_file: BundleFile, registry: CompiledRegistry, routing: EventRouting, model: ExactModel) -> Iterator[str]:
    groups = set(map(_id_of, bundle_file.groups))
    for model_input in model.inputs:
        where = f"model {model.model_name}: inputs: {model_input.name}"
        match model_input:
            case FeatureInput():
                group = model_input.group_name, model_input.group_version
                input_type = feature_type(registry, group, model_input.feature)
                if group not in groups:
                    yield f"{where}: {' '.join(group)} is not among the groups of the file"
                elif input_type is None:
                    yield f"{where}: pack {registry.pack.pack_id} has no such feature"
                elif not input_type.is_numeric:
                    yield f"{where}: is a {input_type.kind}, and a model takes numbers"
                elif model_input.scale < input_type.scale:
                    yield f"{where}: has {input_type.scale} digits behind the point, and the model takes {model_input.scale}"
            case PayloadInput():
                input_type = _payload_type(bundle_file, routing, model_input.field)
                if input_type is None:
                    yield f"{where}: {_not_declared(bundle_file, model_input.field)}"
                elif not input_type.is_numeric:
                    yield f"{where}: is a {input_type.kind}, and a model takes numbers"


def _payload_type(bundle_file: BundleFile, routing: EventRouting, field: str) -> OperandType | None:
    return field_type(routing, field) or (UNDECLARED if field in bundle_file.undeclared_fields else None)


def _not_declared(bundle_file: BundleFile, field: str) -> str:
    return f"the pack declares no {field} of {bundle_file.event_type}: name it among undeclared_fields if payloads have it"


def _id_of(group: FeatureGroupRef) -> tuple[str, str]:
    return group.group_name, group.group_version
