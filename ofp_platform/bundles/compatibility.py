"""Whether a bundle can decide on what is live, in every mode of the posture in which something is decided.

A mode's mask takes away optional groups, identity or the model. A bundle keeps the mask if in each such mode a group is left to
ask for, something is left that decides (the model, or a rule all of whose operands are there), and no rule holds just because the
mask took its feature away.
"""

from __future__ import annotations

from dataclasses import dataclass

from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.storage.bundle_events import BundleDamaged, load_bundle_model
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.loop.bundle import Bundle, Guardrail
from ofp_platform.vocabulary.loop.posture import MASKS, Mask, Mode

GroupId = tuple[str, str]


@dataclass(frozen=True)
class LivePlane:
    """The plane that a bundle would decide on: the registry that is served, and whether there is a stream of identity links."""

    registry: CompiledRegistry
    has_identity: bool


def incompatibilities(bundle: Bundle, live: LivePlane, objects: ObjectStore) -> list[str]:
    """Everything that is against putting a bundle in force, in words; none: it may be.

    Raises:
        ObjectStoreUnavailable: the store does not answer.
    """
    faults = []
    made_for = bundle.feature_definition_set
    pack = live.registry.pack
    if made_for.digest != live.registry.digest:
        faults.append(
            f"feature_definition_set: it was made for {made_for.pack_id} revision {made_for.revision} ({made_for.digest[:12]}),"
            f" and {pack.pack_id} revision {pack.revision} ({live.registry.digest[:12]}) is live: make it anew for that, or apply"
            " the pack first"
        )
    else:
        faults += mask_faults(bundle, live.registry)
        resolving = sorted(group for group in _groups(bundle) if live.registry.groups[group].resolves)
        if resolving and not live.has_identity:
            faults.append(f"groups: {' '.join(resolving[0])} resolves identities, and the profile names no context_stream")
    if bundle.model is not None:
        try:
            load_bundle_model(objects, bundle.model)
        except BundleDamaged as error:
            faults.append(f"model: {error}")
    return faults


def mask_faults(bundle: Bundle, registry: CompiledRegistry) -> list[str]:
    """Why a bundle, whose groups are all in the registry, cannot keep the masks of the posture; none: it can."""
    faults = []
    never_masked = _groups(bundle)
    for mode, mask in MASKS.items():
        if mask.outcomes != "decided":
            continue
        group_ids = _groups_under(bundle, registry, mask)
        never_masked &= group_ids
        if not group_ids:
            faults.append(f"optional_groups: in mode {mode} no group is left to ask for: at least one cannot be done without")
        elif not (mask.model and bundle.model is not None) and not any(_reads(rule) <= group_ids for rule in bundle.guardrails):
            faults.append(_nothing_decides(mode))
    for index, rule in enumerate(bundle.guardrails):
        for place, comparison in enumerate(rule.all_of):
            operand = comparison.feature
            if operand is None or comparison.operator != "is_absent":
                continue
            if (operand.group_name, operand.group_version) not in never_masked:
                faults.append(
                    f"guardrails.{index}.all_of.{place}: {operand.group_name} {operand.group_version} is left out in some mode of"
                    " the posture, and the rule would hold because of that: is_absent is for groups that are always asked for"
                )
    return faults


def _nothing_decides(mode: Mode) -> str:
    return (
        f"guardrails: in mode {mode} nothing decides: at least one rule reads only the payload, and groups that are neither"
        " optional nor resolve identities"
    )


def _groups(bundle: Bundle) -> set[GroupId]:
    return {(group.group_name, group.group_version) for group in bundle.groups}


def _groups_under(bundle: Bundle, registry: CompiledRegistry, mask: Mask) -> set[GroupId]:
    """The groups that a bundle asks for under a mask."""
    group_ids = _groups(bundle)
    if mask.groups != "all":
        group_ids -= {(group.group_name, group.group_version) for group in bundle.optional_groups}
    return group_ids if mask.identity else {group for group in group_ids if not registry.groups[group].resolves}


def _reads(rule: Guardrail) -> set[GroupId]:
    operands = [comparison.feature for comparison in rule.all_of]
    return {(operand.group_name, operand.group_version) for operand in operands if operand is not None}
