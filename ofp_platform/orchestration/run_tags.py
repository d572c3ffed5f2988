"""Tags of every run of the code location: which run of the plane it worked for, and under which configuration.

They are set by the executor, the one thing that all runs go through: those of jobs, sensors and schedules, of backfills, and of
assets that somebody materialises without a job.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from ofp_platform.vocabulary.canonical import jcs_bytes, sha256_hex
from ofp_platform.vocabulary.profile import Profile

RUN_CONFIG_DIGEST = "ofp/run_config_digest"
"""Of the profile, as answers and records of the plane name it."""
LAUNCH_CONFIG_DIGEST = "ofp/launch_config_digest"
"""SHA-256 over the RFC 8785 bytes of the configuration that the run was launched with."""


def profile_tags(profile: Profile) -> dict[str, str]:
    """The context pins and the run_config_digest of a profile."""
    pins = {f"ofp/{name}": str(value) for name, value in profile.context_pins.wire().items()}
    return {**pins, RUN_CONFIG_DIGEST: profile.run_config_digest}


def run_tags(profile: Profile, run_config: Mapping[str, Any]) -> dict[str, str]:
    """All tags of a run that was launched with that configuration."""
    return {**profile_tags(profile), LAUNCH_CONFIG_DIGEST: sha256_hex(jcs_bytes(dict(run_config)))}


class _TaggingExecutor(dg.Executor):
    """Tags the run, then leaves it to another executor."""

    def __init__(self, executor: dg.Executor, profile: Profile) -> None:
        self._executor = executor
        self._profile = profile

    @property
    def retries(self) -> Any:
        """Those of the other one."""
        return self._executor.retries

    @property
    def step_dependency_config(self) -> Any:
        """That of the other one."""
        return self._executor.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        """Execute the run."""
        run = plan_context.dagster_run
        plan_context.instance.add_run_tags(run.run_id, run_tags(self._profile, run.run_config))
        yield from self._executor.execute(plan_context, execution_plan)


def tagging_executor(profile: Profile) -> dg.ExecutorDefinition:
    """The executor of a code location: a run is one or two steps of one process, for a process per step would double the time
    from change to success.
    """
    in_process = dg.in_process_executor

    def create(context: dg.InitExecutorContext) -> dg.Executor:
        create_in_process = in_process.executor_creation_fn
        assert create_in_process is not None
        return _TaggingExecutor(create_in_process(context), profile)

    return dg.ExecutorDefinition(in_process.name, config_schema=in_process.config_schema.as_field(), executor_creation_fn=create)
