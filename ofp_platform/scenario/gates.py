"""The gates of a run that look at its world: each says what it saw and what is wrong with that. Nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ofp_platform.ingress.class_map import ClassMap
from ofp_platform.vocabulary.offline.run_facts import OutputEvidence, ScenarioEvidence
from ofp_platform.vocabulary.scenario import RunPlan
from ofp_platform.vocabulary.times import format_time
from ofp_platform.vocabulary.world import OutputRole, WorldManifest, WorldOutput
from ofp_platform.world.world_rows import moments
from ofp_platform.world.world_store import World, verify_world


@dataclass
class _Counted:
    """The rows of one output as its files have them."""

    rows: int = 0
    first: int | None = None
    last: int | None = None
    types: Counter[str] = field(default_factory=Counter)


def world_gates(world: World, plan: RunPlan, class_map: ClassMap) -> Mapping[str, ScenarioEvidence]:
    """The evidence of each gate by its name; a gate passed where it has no problems.

    Raises:
        ObjectStoreUnavailable: see there.
    """
    manifest, request = world.manifest, plan.request
    verification = verify_world(world.objects, manifest.world)
    seal_faults = [*verification.faults]
    if manifest.digest != request.manifest_digest:
        seal_faults.append(f"the manifest of the world is {manifest.digest}, the request names {request.manifest_digest}")
    unreadable = ["the world is not as it was sealed, so it was not read"] if seal_faults else []
    row_counts = {} if seal_faults else {name: _count(world, name) for name in request.outputs if _is_streamed(manifest, name)}
    outputs = [_output_evidence(item, row_counts[item.output]) for item in manifest.outputs if item.output in row_counts]
    types = sum((each.types for each in row_counts.values()), Counter[str]())
    wrong_outputs = [f"{name}: is no output that is streamed" for name in request.outputs if not _is_streamed(manifest, name)]
    wrong_rows = [f"{item.output}: {item.rows:,} rows, the manifest says {item.rows_in_manifest:,}" for item in outputs]
    wrong_rows = [text for text, item in zip(wrong_rows, outputs, strict=True) if item.rows != item.rows_in_manifest]
    wrong_spans = [f"{item.output}: its times are not those of the manifest" for item in outputs if not _is_in_span(item)]
    unknown = [f"{name}: the class map has no such type and version" for name in sorted(types) if not _is_known(class_map, name)]
    own_run_id = request.context_pins.scenario_run_id
    wrong_pins = (
        [f"scenario_run_id: the pins say {own_run_id}, the run is {plan.scenario_run_id}"]
        if own_run_id not in (None, plan.scenario_run_id)
        else []
    )

    def evidence_of(problems: Sequence[str], **more: Any) -> ScenarioEvidence:
        head = {"world": manifest.world, "manifest_digest": request.manifest_digest, "problems": tuple(problems)}
        return ScenarioEvidence.model_validate({**head, **more})

    return {
        "run_pins": evidence_of(wrong_pins),
        "world_rows": evidence_of([*unreadable, *wrong_outputs, *wrong_rows, *_no_rows(row_counts, unreadable)], outputs=outputs),
        "world_sealed": evidence_of(seal_faults),
        "world_times": evidence_of([*unreadable, *wrong_spans], outputs=outputs),
        "world_types": evidence_of([*unreadable, *unknown], class_map_digest=class_map.digest, event_types=dict(types)),
    }


def _no_rows(row_counts: Mapping[str, _Counted], unreadable: list[str]) -> list[str]:
    """Where no row at all would be streamed: nothing counted is not as it should be."""
    return [] if unreadable or sum(each.rows for each in row_counts.values()) else ["there is no row to stream"]


def _is_streamed(manifest: WorldManifest, name: str) -> bool:
    return any(item.output == name and item.role is not OutputRole.TRUTH for item in manifest.outputs)


def _is_known(class_map: ClassMap, name: str) -> bool:
    event_type, _, schema_version = name.rpartition("/")
    mapped_type = class_map.events.get(event_type)
    return mapped_type is not None and schema_version in mapped_type.schema_versions


def _count(world: World, output: str) -> _Counted:
    row_counts = _Counted()
    for table in world.events(output):
        if not len(table):
            continue
        times = moments(table)
        row_counts.rows += len(table)
        row_counts.first = int(times.min()) if row_counts.first is None else min(row_counts.first, int(times.min()))
        row_counts.last = int(times.max()) if row_counts.last is None else max(row_counts.last, int(times.max()))
        columns = (table.column(name).cast(pa.string()) for name in ("event_type", "schema_version"))
        names, counts = np.unique(pc.binary_join_element_wise(*columns, "/").to_numpy(zero_copy_only=False), return_counts=True)
        row_counts.types.update(dict(zip(names.tolist(), counts.tolist(), strict=True)))
    return row_counts


def _output_evidence(item: WorldOutput, row_counts: _Counted) -> OutputEvidence:
    return OutputEvidence(
        output=item.output,
        rows=row_counts.rows,
        rows_in_manifest=item.rows,
        first_ts_utc=None if row_counts.first is None else format_time(row_counts.first),
        last_ts_utc=None if row_counts.last is None else format_time(row_counts.last),
        span_in_manifest=(item.files[0].first_ts_utc, item.files[-1].last_ts_utc) if item.files else None,
    )


def _is_in_span(item: OutputEvidence) -> bool:
    span = None if item.first_ts_utc is None or item.last_ts_utc is None else (item.first_ts_utc, item.last_ts_utc)
    return span == item.span_in_manifest
