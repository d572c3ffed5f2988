"""Datasets for entity tables: a file or a data frame of keys and times becomes the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from ofp_platform.offline.datasets.dataset_reader import read_dataset
from ofp_platform.offline.datasets.entity_table import store_entity_table, table_scope
from ofp_platform.offline.datasets.publication import load_manifest
from ofp_platform.offline.requests.intent_size import check_intent_size
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.runs.builder import build
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_intent import (
    AsOfBasis,
    DatasetBuild,
    FeaturePackRef,
    Offsets,
    PolicyRef,
    Purpose,
)
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.serving import FeatureGroupRef


@dataclass(frozen=True)
class EntityRequest:
    """A dataset for an entity table. `run_facts_ref`: of published facts of the run; `groups` None: all of its key types."""

    name: str
    registry: CompiledRegistry
    pins: ContextPins
    run_facts_ref: str
    as_of_basis: AsOfBasis = AsOfBasis.INGEST_TIME
    groups: Sequence[FeatureGroupRef] | None = None
    label_columns: tuple[str, ...] = ()
    submitted_by: str | None = None


def entity_intent(build_context: BuildContext, request: EntityRequest, table: pa.Table) -> DatasetBuild:
    """The intent of a dataset for a table (see `entity_table`), over all of the log as it is; the table is stored.

    Raises:
        BuildRefused: NOTHING_TO_BUILD, BUILD_TOO_LARGE. ObjectStoreUnavailable | LogError: see there.
    """
    scope = table_scope(table, request.label_columns)
    key_types = {key_type.value for key_type in scope.key_types}
    pack = request.registry.pack
    groups = request.groups
    if groups is None:
        groups = [
            FeatureGroupRef(group_name=name, group_version=version)
            for (name, version), group in sorted(request.registry.groups.items())
            if group.key_type in key_types
        ]
    ends = build_context.log.ends()
    intent = DatasetBuild(
        context_pins=request.pins,
        run_facts_ref=request.run_facts_ref,
        stream_name=ends.stream_name,
        policy=PolicyRef(policy_id="analysis", revision=1),
        dataset_name=request.name,
        purpose=Purpose.ANALYSIS,
        replay=Offsets(basis=ReplayBasis.up_to(ends)),
        feature_pack=FeaturePackRef(pack_id=pack.pack_id, revision=pack.revision, digest=request.registry.digest),
        feature_groups=tuple(groups),
        scope=scope,
        as_of_basis=request.as_of_basis,
        parity_anchors="none",
        submitted_by=request.submitted_by,
    )
    check_intent_size(intent, build_context.limits)
    store_entity_table(build_context.objects, request.pins, table, scope)
    return intent


def dataset_from_entities(
    build_context: BuildContext, request: EntityRequest, table: pa.Table
) -> tuple[DatasetManifest, pa.Table]:
    """Build and publish the dataset for a table (see `entity_table`); its manifest, and the features of its rows, in their order.

    Raises:
        BuildRefused: why there is no such dataset. As `entity_intent`, too.
    """
    run = build(build_context, build_context.ledger.submit(entity_intent(build_context, request, table)).run_key)
    if run.outcome is None:
        assert run.refusal is not None  # a run without an outcome was refused
        raise BuildRefused(run.refusal.reason, run.refusal.message, run.refusal.field)
    manifest = load_manifest(build_context.objects, run.outcome["dataset_name"], run.outcome["dataset_identity"])
    features = [column.name for column in manifest.columns if column.role == "feature"]
    return manifest, read_dataset(build_context.objects, manifest, features)
