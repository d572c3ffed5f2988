"""Events of OpenLineage (extra `openlineage`) about a published dataset and a published bundle: digests are facets.

An event is made of what is stored alone, so that the same thing told twice is the same run with the same content.
"""

from __future__ import annotations

from hashlib import sha256
from importlib import metadata
from uuid import UUID

import attr
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.generated.base import DatasetFacet, RunFacet
from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet
from openlineage.client.generated.output_statistics_output_dataset import OutputStatisticsOutputDatasetFacet
from openlineage.client.generated.schema_dataset import SchemaDatasetFacet, SchemaDatasetFacetFields

from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.bundle import Bundle
from ofp_platform.vocabulary.loop.eval_report import EvalReport
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.offline.model_lineage import ModelLineage

JOBS = "ofp"
"""The namespace of jobs and of streams; that of objects is the URL of their store."""
PRODUCER = f"urn:ofp-platform:{metadata.version('ofp-platform')}"


@attr.define
class DigestsFacet(DatasetFacet):
    """Digests (SHA-256, hex) by what each is of."""

    digests: dict[str, str]


@attr.define
class BasisFacet(DatasetFacet):
    """The part of a stream that was read: offsets by partition, exclusive-next."""

    offsets: dict[str, str]


@attr.define
class PinsFacet(RunFacet):
    """The context pins of the run of the plane."""

    context_pins: dict[str, str | int]


@attr.define
class EvaluationFacet(RunFacet):
    """The report on a model: its digest, the metrics on the test (decimals), and the gates that it passed."""

    report: str
    metrics: dict[str, str]
    gates: dict[str, str]


def run_id(digest: str) -> str:
    """The run that made a stored thing: a UUID out of its digest."""
    return str(UUID(bytes=sha256(f"ofp|openlineage|{digest}".encode()).digest()[:16], version=5))


def dataset_event(manifest: DatasetManifest, store: str, at_utc: str) -> RunEvent:
    """The build of a dataset. `store`: URL of the object store; `at_utc`: when it was published, RFC 3339."""
    basis = {part.partition_id: str(part.offset) for part in manifest.replay_basis.end.partitions}
    stream = InputDataset(JOBS, manifest.stream_name, facets={"ofp_basis": BasisFacet(basis, producer=PRODUCER)})
    return RunEvent(
        eventTime=at_utc,
        producer=PRODUCER,
        run=Run(run_id(manifest.digest), {"ofp_pins": _pins(manifest.context_pins)}),
        job=Job(JOBS, f"build/{manifest.dataset_name}"),
        eventType=RunState.COMPLETE,
        inputs=[stream],
        outputs=[_published(manifest, store)],
    )


def bundle_event(
    bundle: Bundle, pins: ContextPins, store: str, at_utc: str, learned: tuple[ModelLineage, EvalReport] | None
) -> RunEvent:
    """The making of a bundle, out of the dataset that its model was trained on. `learned`: None where it has no model."""
    facets: dict[str, RunFacet] = {"ofp_pins": _pins(pins)}
    digests = {"bundle": bundle.ref.digest, "feature_pack": bundle.feature_definition_set.digest}
    inputs = []
    if learned is not None and bundle.model is not None:
        lineage, report = learned
        digests |= {"model": bundle.model.digest, "eval_report": report.digest, "train_request": report.request_digest}
        metrics = {str(name): share for name, share in report.metrics.items()}
        gates = {str(gate.metric): f"{gate.seen_value} of {gate.at_least}" for gate in report.gates}
        facets["ofp_evaluation"] = EvaluationFacet(report.digest, metrics, gates, producer=PRODUCER)
        inputs = [
            InputDataset(
                store,
                _dataset_name(lineage.dataset_name),
                facets=_versioned(
                    lineage.dataset_identity, {"manifest": lineage.manifest_digest, "content": lineage.content_digest}
                ),
            )
        ]
    output = OutputDataset(store, f"bundles/{bundle.bundle_name}", facets=_versioned(bundle.ref.digest, digests))
    return RunEvent(
        eventTime=at_utc,
        producer=PRODUCER,
        run=Run(run_id(bundle.ref.digest), facets),
        job=Job(JOBS, f"bundle/{bundle.bundle_name}"),
        eventType=RunState.COMPLETE,
        inputs=inputs,
        outputs=[output],
    )


def _published(manifest: DatasetManifest, store: str) -> OutputDataset:
    digests = {
        "manifest": manifest.digest,
        "content": manifest.content_digest,
        "request": manifest.request_id,
        "feature_pack": manifest.feature_pack.digest,
        "run_config": manifest.run_config_digest,
    }
    columns = [SchemaDatasetFacetFields(column.name, column.type) for column in manifest.columns]
    facets = _versioned(manifest.dataset_identity, digests) | {"schema": SchemaDatasetFacet(columns, producer=PRODUCER)}
    size = sum(file.bytes for file in manifest.files)
    statistics = OutputStatisticsOutputDatasetFacet(manifest.row_count, size, len(manifest.files), producer=PRODUCER)
    return OutputDataset(
        store, _dataset_name(manifest.dataset_name), facets=facets, outputFacets={"outputStatistics": statistics}
    )


def _dataset_name(name: str) -> str:
    return f"ofs/datasets/{name}"


def _versioned(version: str, digests: dict[str, str]) -> dict[str, DatasetFacet]:
    return {
        "version": DatasetVersionDatasetFacet(version, producer=PRODUCER),
        "ofp_digests": DigestsFacet(digests, producer=PRODUCER),
    }


def _pins(pins: ContextPins) -> PinsFacet:
    return PinsFacet(pins.wire(), producer=PRODUCER)
