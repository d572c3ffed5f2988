"""The graph as it is shown: it loads, and a change of it shows in review.

After a wanted change: OFP_WRITE_GRAPH=1 pytest ofp_platform_tests/orchestration/test_code_location.py
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ofp_platform.orchestration.code_location import code_location
from ofp_platform.orchestration.resources import PlaneResource

GRAPH = Path(__file__).with_name("asset_graph.txt")
ROOT = Path(__file__).resolve().parents[2]


def lines(definitions: dg.Definitions) -> Iterator[str]:
    """Everything that the code location defines, in an order of its own."""
    graph = definitions.resolve_asset_graph()
    for spec in sorted(definitions.resolve_all_asset_specs(), key=lambda spec: spec.key):
        node = graph.get(spec.key)
        yield f"asset {spec.key.to_user_string()}"
        yield f"  group: {spec.group_name}  kinds: {', '.join(sorted(spec.kinds))}  owners: {', '.join(spec.owners)}"
        yield f"  deps: {', '.join(sorted(dep.asset_key.to_user_string() for dep in spec.deps)) or 'none'}"
        yield f"  partitions: {partitions_text(spec.partitions_def)}"
        pools = ", ".join(sorted(node.pools or ())) or "none"
        yield f"  code version: {spec.code_version}  executable: {node.is_executable}  pools: {pools}"
        if node.backfill_policy:
            yield f"  backfill: {node.backfill_policy.policy_type.name}"
        if spec.freshness_policy:
            yield f"  freshness: {spec.freshness_policy}"
        tags = {name: value for name, value in spec.tags.items() if not name.startswith("dagster/kind/")}
        yield f"  tags: {json.dumps(tags, sort_keys=True)}"
        metadata = sorted(name for name in spec.metadata if not name.startswith("dagster/internal"))
        yield f"  metadata: {', '.join(metadata) or 'none'}"
        yield f"  {spec.description}"
    for key in sorted(graph.asset_check_keys):
        check = graph.get_check_spec(key)
        yield f"check {key.asset_key.to_user_string()}:{key.name}  {'blocking' if check.blocking else 'not blocking'}"
        yield f"  {check.description}"
    repository = definitions.get_repository_def()
    for job in sorted(repository.get_all_jobs(), key=lambda job: job.name):
        if not job.name.startswith("__"):
            yield f"job {job.name}  nodes: {', '.join(sorted(node.name for node in job.nodes))}"
            yield f"  {job.description}"
    for sensor in sorted(repository.sensor_defs, key=lambda sensor: sensor.name):
        target = ", ".join(sorted(target.job_name for target in sensor.targets))
        yield f"sensor {sensor.name}  {sensor.default_status.value}  every {sensor.minimum_interval_seconds} s  jobs: {target}"
        yield f"  {sensor.description}"
    for schedule in sorted(repository.schedule_defs, key=lambda schedule: schedule.name):
        yield f"schedule {schedule.name}  {schedule.default_status.value}  {schedule.cron_schedule}  job: {schedule.job_name}"
        yield f"  {schedule.description}"
    yield f"resources {', '.join(sorted(definitions.resources or {}))}"


def partitions_text(partitions: dg.PartitionsDefinition | None) -> str:  # type: ignore[type-arg]
    if isinstance(partitions, dg.MultiPartitionsDefinition):
        inner = (f"{one.name}: {partitions_text(one.partitions_def)}" for one in partitions.partitions_defs)
        return f"multi ({'; '.join(inner)})"
    if isinstance(partitions, dg.DynamicPartitionsDefinition):
        return f"dynamic {partitions.name}"
    if isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        return f"{partitions.cron_schedule} from {partitions.start:%Y-%m-%dT%H:%M}Z"
    if isinstance(partitions, dg.StaticPartitionsDefinition):
        return f"static {', '.join(partitions.get_partition_keys())}"
    return "none"


def test_the_definitions_load(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


@pytest.mark.parametrize("settings", [{"database_url": "postgresql://evil.example/x"}, {"profile_source": "/etc/passwd"}])
@pytest.mark.parametrize("resource", ["plane", "object_store", "feature_reader", "builds"])
def test_whoever_launches_a_run_chooses_no_endpoint(definitions: dg.Definitions, resource: str, settings: dict[str, str]) -> None:
    run_config = {"resources": {resource: {"config": settings}}}
    with pytest.raises(dg.DagsterInvalidConfigError):
        definitions.resolve_job_def("observe_log").execute_in_process(run_config=run_config)


def test_the_graph_is_the_one_that_was_reviewed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OFP_PROFILE", "OFP_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    shipped = PlaneResource(profile_source="demo")
    text = "\n".join(lines(code_location(shipped.load_profile(), shipped))) + "\n"
    if os.environ.get("OFP_WRITE_GRAPH"):
        GRAPH.write_text(text, encoding="utf-8")
    assert text == GRAPH.read_text(encoding="utf-8")


def test_kinesis_partitions_are_shards(plane_resource: PlaneResource) -> None:
    profile = plane_resource.load_profile().model_copy(update={"log_kind": "kinesis"})
    spec = next(one for one in code_location(profile, plane_resource).resolve_all_asset_specs() if one.key.path[0] == "log")
    assert isinstance(spec.partitions_def, dg.StaticPartitionsDefinition)
    assert spec.partitions_def.get_partition_keys() == ["shardId-000000000000", "shardId-000000000001"]
    assert spec.kinds == {"kinesis"}


def test_partitions_are_those_of_the_stream_whatever_the_profile_says(plane_resource: PlaneResource) -> None:
    profile = plane_resource.load_profile()
    with plane_resource.open() as plane:
        listed = sorted(plane.partition_ids())
    assert len(listed) == profile.partitions
    another_number = profile.model_copy(update={"partitions": profile.partitions + 3})
    location = code_location(another_number, plane_resource)
    spec = next(one for one in location.resolve_all_asset_specs() if one.key.path[0] == "log")
    assert isinstance(spec.partitions_def, dg.StaticPartitionsDefinition)
    assert spec.partitions_def.get_partition_keys() == listed
    assert f"in {len(listed)} partitions" in str(spec.description)


def test_partitions_are_those_of_the_profile_where_nothing_answers(
    plane_resource: PlaneResource, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    profile = plane_resource.load_profile()
    away = PlaneResource(profile_source=plane_resource.profile_source, database_url=f"postgresql://nobody@/none?host={tmp_path}")
    spec = next(one for one in code_location(profile, away).resolve_all_asset_specs() if one.key.path[0] == "log")
    assert isinstance(spec.partitions_def, dg.StaticPartitionsDefinition)
    assert spec.partitions_def.get_partition_keys() == ["0000", "0001"]
    assert "partitions as in the profile" in caplog.text


def test_the_entry_point_needs_nothing_but_a_folder(tmp_path: Path) -> None:
    """Loading connects to nothing: no server is started, no folder made."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OFP_", "DAGSTER_"))}
    code = "from ofp_platform.definitions import defs; import dagster; dagster.Definitions.validate_loadable(defs)"
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=True,
        cwd=ROOT,
        env={**environment, "OFP_HOME": str(tmp_path / "home")},
        timeout=120,
    )
    assert not (tmp_path / "home").exists()
