"""Retention as a job: the same stores as the command, told in the output of its op."""

import dagster as dg
import pytest

from ofp_platform.cli.installation.retention import FOR_GOOD
from ofp_platform.online.plane import Plane


def test_the_job_goes_through_every_store(
    definitions: dg.Definitions,
    plane: Plane,
    instance: dg.DagsterInstance,
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OFP_HOME", str(tmp_path))
    monkeypatch.delenv("OFP_DAGSTER_POSTGRES_URL", raising=False)
    result = definitions.resolve_job_def("retention").execute_in_process(instance=instance)
    assert result.success
    (output,) = result.filter_events(lambda event: event.is_successful_output)
    counts = {name: value.value for name, value in output.step_output_data.metadata.items()}
    assert {"log", "scratch folders of builds", "Dagster events", *FOR_GOOD} <= set(counts)
    assert set(counts.values()) == {0}
