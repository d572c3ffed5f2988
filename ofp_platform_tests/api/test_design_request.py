"""The design's own request, sent as it is over HTTP to a running service: valid, of a run that is not known there."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from jsonschema import Draft202012Validator

from ofp_platform.api.contract_files import CONTRACTS
from ofp_platform.cli.processes import Child, ofp_command
from ofp_platform.online.plane import Plane
from ofp_platform_tests.api.keys import BEARER, write_principals
from ofp_platform_tests.oracle.simulated_log import append, profile, write_profile

EXAMPLES = Path(__file__).parent / "design_examples"
DESIGN = Path(__file__).parents[3] / "shared" / "design" / "examples"
REQUEST = (EXAMPLES / "get_features_request.json").read_bytes()
CONTRACT = Draft202012Validator(json.loads((CONTRACTS / "ofp_public_contracts_v0.schema.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def address(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service on a plane that serves another run."""
    home = tmp_path_factory.mktemp("served")
    path = write_profile(home)
    with Plane.open(profile(home), module_dsn) as plane:
        append(plane.log)
        assert plane.projector(plane.ensure_live()).apply_available(max_records=100) is not None
    command = ofp_command("serve", "--port", "0", "--profile", str(path), "--home", str(home))
    root = str(Path(__file__).parents[2])
    principals = write_principals(home / "principals.json")
    environment = {
        "OFP_DATABASE_URL": module_dsn,
        "OFP_PRINCIPALS": str(principals),
        "PYTHONPATH": os.pathsep.join([root, *sys.path]),
    }
    with Child("the service", command, environment, home / "serve.log") as child:
        served = child.wait_for_line("serving at ", 60)
        assert served is not None
        yield served


def asked(address: str, body: bytes) -> httpx.Response:
    return httpx.post(
        f"{address}/v0/get_features", content=body, headers=BEARER | {"content-type": "application/json"}, timeout=30
    )


def test_the_request_is_of_an_unknown_run_and_not_malformed(address: str) -> None:
    answer = asked(address, REQUEST)
    said = answer.json()
    assert (answer.status_code, said["error_code"], said["reason"]) == (404, "NOT_FOUND", "UNKNOWN_RUN")
    assert said["context_pins"] == json.loads(REQUEST)["context_pins"]
    assert said["retryable"] is False
    CONTRACT.validate(said)


def test_with_the_pins_of_the_run_only_its_groups_are_unknown(address: str, tmp_path: Path) -> None:
    pins = profile(tmp_path).context_pins.wire()
    said = asked(address, json.dumps({**json.loads(REQUEST), "context_pins": pins}).encode()).json()
    assert (said["error_code"], said["reason"]) == ("NOT_FOUND", "UNKNOWN_GROUP_VERSION")
    assert said["context_pins"] == pins
    CONTRACT.validate(said)


@pytest.mark.skipif(not DESIGN.is_dir(), reason="the folder of the design is not beside this repository")
def test_the_copies_are_those_of_the_design() -> None:
    for path in DESIGN.glob("*.json"):
        assert (EXAMPLES / path.name).read_bytes() == path.read_bytes(), path.name
