"""The feature side of an intent: the pack as published, its groups, and whether the rows asked for can have them."""

from __future__ import annotations

from typing import NoReturn

from ofp_platform.offline.sources.store_outage import answering
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.pack import load_pack
from ofp_platform.registry.question import check_request
from ofp_platform.storage.postgres import Pool
from ofp_platform.storage.published_packs import pack_content, pack_digests
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.offline.build_intent import (
    GRAPH_VERSION_COLUMN,
    DatasetBuild,
    FeaturePackRef,
    ForensicRebuild,
    PerEvent,
    PerTable,
)
from ofp_platform.vocabulary.offline.build_plan import PinnedPack
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.profile import Limits
from ofp_platform.vocabulary.serving import FeatureGroupRef, GetFeaturesRequest

_FIELDS = {
    Reason.INVALID_KEY: "feature_keys",
    Reason.DUPLICATE_KEY: "feature_keys",
    Reason.KEY_WITHOUT_GROUP: "feature_keys",
    Reason.TOO_MANY_KEYS: "feature_keys",
    Reason.DUPLICATE_GROUP: "feature_groups",
    Reason.GROUP_WITHOUT_KEY: "feature_groups",
    Reason.TOO_MANY_GROUPS: "feature_groups",
    Reason.UNKNOWN_GROUP_VERSION: "feature_groups",
    Reason.REQUEST_CONTEXT_INVALID: "request_context",
    Reason.REQUEST_CONTEXT_MISSING: "request_context",
    Reason.RAW_IDENTIFIER: "request_context",
}


NOTHING_RESOLVES = "no group of the intent resolves identities, so no value is of a version of the graph: leave it out"


def resolve_pack(pool: Pool, ref: FeaturePackRef) -> tuple[PinnedPack, CompiledRegistry]:
    """The pack of that revision as it was published.

    Raises:
        BuildRefused: FEATURE_PROFILE_UNRESOLVED; STORE_UNAVAILABLE.
    """
    with answering(), pool.connection() as connection:
        digests = pack_digests(connection, ref.pack_id, ref.revision)
        if not digests:
            _refuse("feature_pack.revision", "no such revision of this pack is published here")
        if ref.digest is not None and ref.digest not in digests:
            _refuse("feature_pack.digest", f"this revision is published with digest {' and '.join(digests)}")
        if ref.digest is None and len(digests) > 1:
            text = f"this revision is published with {len(digests)} contents: say which digest, {' or '.join(digests)}"
            _refuse("feature_pack.digest", text)
        digest = ref.digest or digests[0]
        content = pack_content(connection, digest)
    assert content is not None  # packs are never removed
    return PinnedPack(pack_id=ref.pack_id, revision=ref.revision, digest=digest), compile_pack(load_pack(content, digest))


def resolve_groups(intent: DatasetBuild, registry: CompiledRegistry) -> tuple[FeatureGroupRef, ...]:
    """The groups in canonical order, each of which the rows of the scope can have.

    Raises:
        BuildRefused: FEATURE_PROFILE_UNRESOLVED: the pack has no such group version, event type or payload field, or none of
            the scope's rows has a key of a group's key type.
    """
    scope = intent.scope
    routings = registry.pack.events
    if isinstance(scope, PerEvent):
        for index, event_type in enumerate(scope.event_types):
            if event_type not in routings:
                _refuse(f"scope.event_types.{index}", f"the pack knows no such event type; it has {', '.join(sorted(routings))}")
        scope_routings = [routings[event_type] for event_type in scope.event_types]
        key_types = {key_type.value for routing in scope_routings for key_type in routing.keys}
        readable = {field for routing in scope_routings for field in (*routing.fields, *routing.keys.values())}
        for index, field in enumerate(scope.payload_fields):
            if field not in readable:
                text = f"the pack reads no such field of these event types; it reads {', '.join(sorted(readable))}"
                _refuse(f"scope.payload_fields.{index}", text)
    elif isinstance(scope, PerTable):
        key_types = {key_type.value for key_type in scope.key_types}
    else:
        key_types = {scope.key_type.value}
    for index, group in enumerate(intent.feature_groups):
        compiled_group = registry.groups.get((group.group_name, group.group_version))
        if compiled_group is None:
            known_groups = ", ".join(f"{name} {version}" for name, version in sorted(registry.groups))
            _refuse(f"feature_groups.{index}", f"the pack has no such group version; it has {known_groups}")
        if compiled_group.key_type not in key_types:
            types = ", ".join(sorted(key_types))
            text = f"this group is of key type {compiled_group.key_type}, and the rows of this scope have {types}"
            _refuse(f"feature_groups.{index}", text)
        if isinstance(scope, PerTable):
            _check_columns(scope, f"{group.group_name}_{group.group_version}__", resolves=compiled_group.resolves)
    return _canonical_order(intent.feature_groups)


def _check_columns(scope: PerTable, of_features: str, *, resolves: bool) -> None:
    for place, name in enumerate(scope.columns):
        if name.startswith(of_features) or (resolves and name == GRAPH_VERSION_COLUMN):
            _refuse(f"scope.columns.{place}", "a column of the table is called as columns of the dataset are; call it otherwise")


def resolve_question(intent: ForensicRebuild, registry: CompiledRegistry) -> tuple[FeatureGroupRef, ...]:
    """The groups of a forensic rebuild in canonical order; the whole question is one that the plane could have been asked.

    Raises:
        BuildRefused: FEATURE_PROFILE_UNRESOLVED, INVALID_INTENT.
    """
    request = GetFeaturesRequest(
        context_pins=intent.context_pins,
        feature_keys=intent.feature_keys,
        feature_groups=intent.feature_groups,
        as_of_time_utc=intent.as_of_time_utc,
        request_context=intent.request_context,
    )
    try:
        question = check_request(request, registry, intent.context_pins, Limits())
    except ContractError as error:
        unknown = error.reason is Reason.UNKNOWN_GROUP_VERSION
        reason = BuildReason.FEATURE_PROFILE_UNRESOLVED if unknown else BuildReason.INVALID_INTENT
        text = "the pack does not have all of these group versions" if unknown else error.message
        raise BuildRefused(reason, text, _FIELDS.get(error.reason, "")) from None
    if question.resolved_types and intent.graph_version is None:
        text = "a group resolves identities, and the intent names no graph_version: give that of the snapshot"
        raise BuildRefused(BuildReason.INVALID_INTENT, text, "graph_version")
    if not question.resolved_types and intent.graph_version is not None:
        raise BuildRefused(BuildReason.INVALID_INTENT, NOTHING_RESOLVES, "graph_version")
    return _canonical_order(intent.feature_groups)


def _canonical_order(groups: tuple[FeatureGroupRef, ...]) -> tuple[FeatureGroupRef, ...]:
    return tuple(sorted(groups, key=lambda group: (group.group_name, group.group_version)))


def _refuse(field: str, message: str) -> NoReturn:
    raise BuildRefused(BuildReason.FEATURE_PROFILE_UNRESOLVED, message, field)
