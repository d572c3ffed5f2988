"""A code location on a database of its own, with simulated payments in its log."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ofp_platform.online.plane import Plane
from ofp_platform.orchestration.code_location import code_location
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform_tests.oracle.simulated_log import append, write_profile


@pytest.fixture(autouse=True)
def role_per_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run works with rights that its job has not."""
    monkeypatch.setenv("OFP_ROLE_PER_JOB", "1")


@pytest.fixture
def plane_resource(dsn: str, tmp_path: Path) -> PlaneResource:
    return PlaneResource(profile_source=str(write_profile(tmp_path)), database_url=dsn)


@pytest.fixture
def definitions(plane_resource: PlaneResource) -> dg.Definitions:
    return code_location(plane_resource.load_profile(), plane_resource)


@pytest.fixture
def plane(plane_resource: PlaneResource) -> Iterator[Plane]:
    """The same plane, with all payments in the log and nothing applied."""
    with plane_resource.open("owner") as opened:
        append(opened.log)
        yield opened


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral
