"""Feature groups as assets that nobody materialises: definitions, owners and tags where people search for them."""

from __future__ import annotations

import re
from collections.abc import Iterable

import dagster as dg

from ofp_platform.orchestration.log.event_assets import OWNERS
from ofp_platform.orchestration.online.projection_assets import PROJECTION
from ofp_platform.registry.catalogue import catalogue, definition
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.vocabulary.catalogue import CatalogueFeature, CatalogueGroup
from ofp_platform.vocabulary.profile import Profile


def feature_group_key(group_name: str, group_version: str) -> dg.AssetKey:
    """The asset of a group version."""
    return dg.AssetKey(["features", re.sub(r"[^A-Za-z0-9_]", "_", f"{group_name}_{group_version}")])


def feature_group_specs(profile: Profile, registry: CompiledRegistry) -> list[dg.AssetSpec]:
    """An asset for each group version of the profile's pack, with a column for each feature."""
    return [_spec(group, registry) for group in catalogue(registry, profile.context_pins).groups]


def _spec(group: CatalogueGroup, registry: CompiledRegistry) -> dg.AssetSpec:
    words = group.description or f"Features of the {group.key_type.value}."
    return dg.AssetSpec(
        feature_group_key(group.group_name, group.group_version),
        deps=[PROJECTION],
        description=f"{words} Served as {group.group_name}:{group.group_version} by `get_features`; stale after"
        f" {group.ttl_seconds} s. Computed by the projection: this asset is its definition.",
        group_name="features",
        kinds={"postgres"},
        owners=[group.owner] if group.owner else OWNERS,
        tags={"pack": registry.pack.pack_id, "key_type": group.key_type.value, **dict.fromkeys(group.tags, "")},
        metadata={
            "dagster/column_schema": dg.TableSchema(columns=list(_columns(group.features))),
            "content_digest": group.content_digest,
            "key_type": group.key_type.value,
        },
    )


def _columns(features: Iterable[CatalogueFeature]) -> Iterable[dg.TableColumn]:
    for feature in features:
        yield dg.TableColumn(
            feature.name,
            feature.type,
            f"{feature.description} {definition(feature)}".strip(),
            tags=dict.fromkeys(feature.tags, ""),
        )
