"""Every run of the code location is tagged, whoever launched it: the executor does it, and no job has another."""

import hashlib
from collections.abc import Iterator

import dagster as dg
import pytest

from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.orchestration.run_tags import LAUNCH_CONFIG_DIGEST, RUN_CONFIG_DIGEST, run_tags, tagging_executor
from ofp_platform.vocabulary.profile import Profile

PINS = ("ofp/scenario_id", "ofp/run_id", "ofp/manifest_fingerprint", "ofp/parameter_hash")


@pytest.fixture
def profile(plane_resource: PlaneResource) -> Profile:
    return plane_resource.load_profile()


def test_tags_are_the_pins_and_both_digests(profile: Profile) -> None:
    tags = run_tags(profile, {"ops": {"b": 1, "a": "é"}})
    assert tags == {
        **{f"ofp/{name}": str(value) for name, value in profile.context_pins.wire().items()},
        RUN_CONFIG_DIGEST: profile.run_config_digest,
        LAUNCH_CONFIG_DIGEST: hashlib.sha256('{"ops":{"a":"é","b":1}}'.encode()).hexdigest(),
    }
    assert set(PINS) <= set(tags)


def test_the_order_of_a_configuration_is_no_part_of_its_digest_and_its_content_is(profile: Profile) -> None:
    one, same, other = ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3})
    assert run_tags(profile, one) == run_tags(profile, same)
    assert run_tags(profile, one)[LAUNCH_CONFIG_DIGEST] != run_tags(profile, other)[LAUNCH_CONFIG_DIGEST]


def untagged_jobs(definitions: dg.Definitions, executor: dg.ExecutorDefinition) -> Iterator[str]:
    """Jobs of a code location, that of its assets among them, whose runs go through another executor."""
    for job in definitions.get_repository_def().get_all_jobs():
        if job.executor_def is not executor:
            yield job.name


def test_every_job_and_so_every_sensor_and_schedule_goes_through_it(definitions: dg.Definitions) -> None:
    executor = definitions.executor
    assert isinstance(executor, dg.ExecutorDefinition)
    assert executor is not dg.in_process_executor
    repository = definitions.get_repository_def()
    assert not list(untagged_jobs(definitions, executor))
    known_jobs = {job.name for job in repository.get_all_jobs()}
    assert any(name.startswith("__") for name in known_jobs), "assets without a job are launched by one that Dagster makes"
    for sensor in repository.sensor_defs:
        assert {target.job_name for target in sensor.targets} <= known_jobs, sensor.name
    for schedule in repository.schedule_defs:
        assert schedule.job_name in known_jobs, schedule.name


def test_a_job_with_an_executor_of_its_own_would_be_seen(profile: Profile) -> None:
    @dg.op
    def nothing() -> None:
        """Do nothing."""

    @dg.job(executor_def=dg.in_process_executor)
    def apart() -> None:
        nothing()

    executor = tagging_executor(profile)
    assert list(untagged_jobs(dg.Definitions(jobs=[apart], executor=executor), executor)) == ["apart"]


def tagged_jobs(profile: Profile) -> dg.Definitions:
    class Config(dg.Config):
        size: int = 1

    @dg.op
    def nothing(config: Config) -> None:
        """Do nothing."""

    @dg.op
    def failing() -> None:
        """Fail."""
        raise dg.Failure("on purpose", allow_retries=False)

    @dg.job
    def quiet() -> None:
        nothing()

    @dg.job
    def broken() -> None:
        failing()

    return dg.Definitions(jobs=[quiet, broken], executor=tagging_executor(profile))


@pytest.mark.parametrize(
    ("name", "run_config", "succeeds"),
    [("quiet", {}, True), ("quiet", {"ops": {"nothing": {"config": {"size": 2}}}}, True), ("broken", {}, False)],
)
def test_a_run_is_tagged_and_keeps_the_tags_it_had(
    profile: Profile, instance: dg.DagsterInstance, name: str, run_config: dict[str, object], *, succeeds: bool
) -> None:
    job = tagged_jobs(profile).resolve_job_def(name)
    run = instance.create_run_for_job(job, run_config=run_config, tags={"who": "ada"})
    events = list(dg_run(job, run, instance))
    assert any(event.is_step_success for event in events) is succeeds
    stored = instance.get_run_by_id(run.run_id)
    assert stored is not None
    assert stored.is_success is succeeds
    assert {**run_tags(profile, run_config), "who": "ada"}.items() <= stored.tags.items()


def dg_run(job: dg.JobDefinition, run: dg.DagsterRun, instance: dg.DagsterInstance) -> Iterator[dg.DagsterEvent]:
    """Execute a run as the process of a run does."""
    from dagster._core.definitions.job_base import InMemoryJob
    from dagster._core.execution.api import execute_run_iterator

    return execute_run_iterator(InMemoryJob(job), run, instance)
