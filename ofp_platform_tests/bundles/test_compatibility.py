"""Whether a bundle keeps the masks of the posture, against a naive walk through all modes; and what else is against it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.bundles.compatibility import LivePlane, incompatibilities, mask_faults
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.loop.bundle import Bundle
from ofp_platform_tests.bundles.trained import model_of

NAMES = ("account_alone", "account_entity", "account_habits")
RESOLVING = "account_entity"
FEATURES = {"account_alone": "transfers_24h", "account_entity": "transfers_24h", "account_habits": "median_amount_7d"}
AMOUNT = {"field": "amount_minor", "operator": "above", "value": 1}
REGISTRY = compile_pack(shipped_pack("mule_rings"))


def group(name: str) -> dict[str, str]:
    return {"group_name": name, "group_version": "v1"}


def rule(*parts: tuple[str | None, str]) -> dict[str, Any]:
    """A rule of comparisons, each of a group's feature, or (None) of the payload."""
    comparisons = []
    for name, operator in parts:
        value = {} if operator == "is_absent" else {"value": 1}
        of = {"field": "amount_minor"} if name is None else {"feature": {**group(name), "feature": FEATURES[name]}}
        comparisons.append({**of, "operator": operator, **value})
    return {"reason_code": "R", "outcome": "review", "all_of": comparisons}


def bundle(names: list[str], optional: list[str], rules: list[dict[str, Any]], *, with_model: bool = False) -> Bundle:
    thresholds = {"review_from": 1, "decline_from": 2}
    fields = {
        "bundle_name": "b",
        "event_type": "transfer",
        "key_fields": {"account": "account_id"},
        "groups": [group(name) for name in names],
        "optional_groups": [group(name) for name in optional],
        "feature_definition_set": {"pack_id": "mule_rings", "revision": 1, "digest": REGISTRY.digest},
        "guardrails": rules,
        "model": {"path": "learning/m.json", "digest": "1" * 64, "thresholds": thresholds} if with_model else None,
    }
    return Bundle.model_validate(fields)


@st.composite
def bundles(draw: st.DrawFn) -> Bundle:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    part = st.tuples(st.sampled_from([None, *names]), st.sampled_from(["above", "is_absent"]))
    rules = draw(st.lists(st.lists(part, min_size=1, max_size=2), max_size=3))
    with_model = draw(st.booleans()) or not rules
    optional = draw(st.lists(st.sampled_from(names), unique=True))
    return bundle(names, optional, [rule(*parts) for parts in rules], with_model=with_model)


def keeps_masks(some: Bundle) -> bool:
    """The same, said mode by mode."""
    asked = {one.group_name for one in some.groups}
    required = asked - {one.group_name for one in some.optional_groups}
    in_rules_only = required - {RESOLVING}

    def reads(parts: Any, left: set[str]) -> bool:
        return all(part.feature is None or part.feature.group_name in left for part in parts.all_of)

    for left, has_model in ((asked, True), (required, True), (in_rules_only, False)):  # NORMAL, REDUCED, RULES_ONLY
        if not left:
            return False
        if not (has_model and some.model is not None) and not any(reads(parts, left) for parts in some.guardrails):
            return False
    absent = [part for parts in some.guardrails for part in parts.all_of if part.operator == "is_absent"]
    return all(part.feature is None or part.feature.group_name in in_rules_only for part in absent)


@given(bundles())
def test_a_bundle_keeps_the_masks_as_a_walk_through_the_modes_says(some: Bundle) -> None:
    assert (not mask_faults(some, REGISTRY)) == keeps_masks(some)


@pytest.mark.parametrize(
    ("some", "words"),
    [
        (bundle(["account_alone"], ["account_alone"], [rule((None, "above"))]), "in mode REDUCED no group is left"),
        (bundle(["account_entity"], [], [rule((None, "above"))]), "in mode RULES_ONLY no group is left"),
        (bundle(["account_alone"], [], [], with_model=True), "in mode RULES_ONLY nothing decides: at least one rule"),
        (
            bundle(["account_alone", "account_habits"], ["account_alone"], [rule(("account_alone", "above"))]),
            "in mode REDUCED nothing decides",
        ),
        (
            bundle(["account_alone", "account_entity"], [], [rule(("account_entity", "above"))]),
            "in mode RULES_ONLY nothing decides",
        ),
        (
            bundle(
                ["account_alone", "account_habits"],
                ["account_alone"],
                [rule((None, "above")), rule((None, "above"), ("account_alone", "is_absent"))],
            ),
            r"guardrails\.1\.all_of\.1: account_alone v1 is left out in some mode of the posture",
        ),
    ],
)
def test_a_mask_that_cannot_be_kept_is_told(some: Bundle, words: str, tmp_path: Path) -> None:
    objects = ObjectStore(str(tmp_path / "objects"))
    faults = "\n".join(incompatibilities(some, LivePlane(REGISTRY, has_identity=True), objects))
    assert re.search(words, faults), faults


def test_what_a_plane_lacks_is_told(tmp_path: Path, card_registry: CompiledRegistry) -> None:
    objects = ObjectStore(str(tmp_path / "objects"))
    some = bundle(["account_alone", "account_entity"], ["account_entity"], [rule((None, "above"))], with_model=True)
    words = incompatibilities(some, LivePlane(REGISTRY, has_identity=False), objects)
    assert words[0] == "groups: account_entity v1 resolves identities, and the profile names no context_stream"
    assert words[1].startswith("model: the model learning/m.json is not in ")
    model = model_of({"source": "payload", "field": "amount_minor", "scale": 0})
    assert some.model is not None
    whole = some.model_copy(update={"model": some.model.model_copy(update={"digest": model.digest})})
    objects.put_if_absent("learning/m.json", model.stored())
    assert incompatibilities(whole, LivePlane(REGISTRY, has_identity=True), objects) == []
    (words_of_other,) = incompatibilities(whole, LivePlane(card_registry, has_identity=True), objects)
    assert words_of_other.startswith("feature_definition_set: it was made for mule_rings revision 1")
