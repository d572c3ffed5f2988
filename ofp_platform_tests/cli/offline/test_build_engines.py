"""`ofp build run --engine`: the engine is how a build is run, and nothing of what it gives."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ofp_platform.offline.datasets.publication import load_manifest
from ofp_platform.offline.runs import replay_stage
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.runs.builder import build
from ofp_platform.offline.sources.spark_engine import SparkUnavailable, demand_spark
from ofp_platform.storage.schema import migrate
from ofp_platform.vocabulary.offline.build_refusal import BuildReason
from ofp_platform.vocabulary.offline.build_run import BuildRun, RunState
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.offline.feature_engine import FeatureEngine
from ofp_platform_tests.cli.conftest import OfflinePlane
from ofp_platform_tests.cli.program import call
from ofp_platform_tests.oracle.labelled_plane import LabelledPlane

pytestmark = pytest.mark.filterwarnings("ignore")  # Spark's own, of its JVM's pipes and its Pandas versions


def manifest_of(world: LabelledPlane, run: BuildRun) -> DatasetManifest:
    assert run.state is RunState.DONE, run.refusal
    assert run.outcome is not None
    return load_manifest(world.objects, run.outcome["dataset_name"], run.outcome["dataset_identity"])


def contents(world: LabelledPlane, manifest: DatasetManifest) -> list[bytes]:
    return [world.objects.get(file.path) for file in manifest.files]


def engine_of(context: BuildContext, run: BuildRun) -> object:
    (staged,) = (receipt for receipt in context.ledger.receipts(run.run_key) if receipt.stage == "staged")
    return staged.content.get("engine", "processes")


def cluster_here(folder: Path, monkeypatch: pytest.MonkeyPatch, master: str) -> None:
    """A cluster of processes of this machine; what its workers write lies in `folder`, not beside pyspark."""
    import pyspark
    from pyspark.sql import SparkSession

    if SparkSession.getActiveSession() is not None:
        pytest.skip("a Spark session of another test is active in this process: a build would use that one")
    home = folder / "spark"
    home.mkdir()
    for name in ("bin", "jars", "python"):
        (home / name).symlink_to(Path(pyspark.__file__).parent / name)
    monkeypatch.setenv("SPARK_HOME", str(home))
    monkeypatch.setenv("SPARK_SCALA_VERSION", "2.13")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("OFP_SPARK_MASTER", master)


@pytest.mark.timeout(900)  # a JVM for each executor, and kernels that each of them compiles
@pytest.mark.parametrize("master", ["", "local-cluster[2,1,1024]"], ids=["on this machine", "on a cluster"])
def test_one_plan_built_by_both_engines_gives_the_same_bytes(
    offline: OfflinePlane, empty_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, master: str
) -> None:
    try:
        demand_spark()
    except SparkUnavailable as missing:
        pytest.skip(str(missing))
    if master:
        cluster_here(tmp_path, monkeypatch, master)
    migrate(empty_dsn)
    first, second = offline.labelled, LabelledPlane.prepare(empty_dsn, tmp_path)
    variables = {"OFP_HOME": str(tmp_path), "OFP_DATABASE_URL": empty_dsn, "OFP_PROFILE": str(tmp_path / "profile.yaml")}
    with second.plane:
        name = "by_spark_cluster" if master else "by_two_engines"
        assert second.build_context.archive.partition_ids()  # so executors have something to fold
        asked = [one.build_context.ledger.submit(one.intent(name)) for one in (first, second)]
        assert asked[0].run_key == asked[1].run_key
        key = asked[0].run_key
        assert offline.ofp("build", "run", key).code == 0
        said = call("build", "run", key, "--engine", "spark", "--workers", "2", **variables)
        assert (said.code, said.out) == (0, f"{key} DONE dataset_build {name}\n"), said
        runs = [one.build_context.ledger.show(key) for one in (first, second)]
        assert [engine_of(one.build_context, run) for one, run in zip((first, second), runs, strict=True)] == [
            "processes",
            "spark",
        ]
        assert "receipt of staged, attempt 1, engine spark: " in call("intent", "show", key, **variables).out
        ours, theirs = manifest_of(first, runs[0]), manifest_of(second, runs[1])
        assert theirs.dataset_identity == ours.dataset_identity
        assert theirs.content_digest == ours.content_digest
        assert theirs.files == ours.files
        assert theirs.digest == ours.digest
        assert contents(second, theirs) == contents(first, ours)


def test_without_pyspark_nothing_is_begun(offline: OfflinePlane, monkeypatch: pytest.MonkeyPatch) -> None:
    run = offline.labelled.build_context.ledger.submit(offline.labelled.intent("no_pyspark"))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyspark.sql", None)
        said = offline.ofp("build", "run", run.run_key, "--engine", "spark")
    assert "engine spark: pyspark is not installed in " in said.refused()
    assert "or build with the engine processes" in said.refused()
    left = offline.labelled.build_context.ledger.show(run.run_key)
    assert (left.state, left.attempts) == (RunState.QUEUED, 0)
    assert offline.ofp("build", "run", run.run_key).code == 0


def test_without_java_nothing_is_begun(offline: OfflinePlane, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = offline.labelled.build_context.ledger.submit(offline.labelled.intent("no_java"))
    with monkeypatch.context() as patch:
        patch.setenv("JAVA_HOME", str(tmp_path))
        said = offline.ofp("build", "run", run.run_key, "--engine", "spark")
    assert f"JAVA_HOME is {tmp_path}, and there is no bin/java in it" in said.refused()
    assert offline.labelled.build_context.ledger.show(run.run_key).attempts == 0


def test_spark_that_fails_in_the_middle_may_be_tried_again(offline: OfflinePlane, monkeypatch: pytest.MonkeyPatch) -> None:
    world = offline.labelled
    context = world.build_context

    def fails(cores: int) -> object:
        raise SparkUnavailable("engine spark: Spark does not start")

    run = context.ledger.submit(world.intent("spark_that_fails"))
    with monkeypatch.context() as patch:
        patch.setattr(replay_stage, "spark_session", fails)
        patch.setattr("ofp_platform.offline.runs.build_context.demand_spark", lambda: None)
        eager = BuildContext(context.pool, context.log, context.objects, context.scratch, engine=FeatureEngine.SPARK)
        failed = build(eager, run.run_key)
    assert failed.refusal is not None
    assert (failed.state, failed.refusal.reason, failed.retryable) == (RunState.FAILED, BuildReason.STORE_UNAVAILABLE, True)
    assert failed.refusal.message == "engine spark: Spark does not start"
    assert not context.run_folder(run.run_key).exists()
    assert not any("spark_that_fails" in path for path in world.objects.list())
    context.ledger.reopen(run.run_key)
    again = build(context, run.run_key)
    assert again.state is RunState.DONE, again.refusal


def test_a_memory_that_is_too_small_is_refused_before_anything_is_begun(offline: OfflinePlane) -> None:
    run = offline.labelled.build_context.ledger.submit(offline.labelled.intent("frugal"))
    refused = offline.ofp("build", "run", run.run_key, "--memory", "500MB", "--workers", "2").refused()
    assert "a memory of 500 MB is too small: a build with 2 workers needs at least 1,160 MB" in refused
    assert (
        "--memory: 'plenty' is no amount of memory: write 3GB"
        in offline.ofp("build", "run", run.run_key, "--memory", "plenty").refused()
    )
    assert offline.labelled.build_context.ledger.show(run.run_key).attempts == 0
    assert offline.ofp("build", "run", run.run_key, "--memory", "1.5GB", "--workers", "2").code == 0
