"""The client as a decision service installs it: few packages, nothing of the plane, and a real answer all the same."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ofp_platform.api import examples
from ofp_platform.cli import entry
from ofp_platform_tests.api.fake_port import HASH
from ofp_platform_tests.api.keys import KEY
from ofp_platform_tests.api.test_server import running

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"boto3", "botocore", "dagster", "matplotlib", "numba", "numpy", "pandas", "psycopg", "pyarrow", "structlog"}
MOST_PACKAGES = 14

# What a new interpreter runs: every package that is not installed with the client cannot be imported.
ALONE = """
import json, sys
allowed, root, address, key, request = json.loads(sys.argv[1])
sys.path.insert(0, root)

class ClientOnly:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        of_python = top in sys.stdlib_module_names or top.startswith("_sysconfigdata")
        if top not in allowed and not of_python:
            raise ModuleNotFoundError(f"{name} is not installed with the client", name=name)

sys.meta_path.insert(0, ClientOnly())
from ofp_platform.client import OfpClient, verify
from ofp_platform.vocabulary.serving import GetFeaturesRequest
with OfpClient(address, token=key, timeout_seconds=20.0) as ofp:
    answer = ofp.ask(GetFeaturesRequest.model_validate(request))
print(json.dumps({"hash": verify(answer), "loaded": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def installed_with_the_client() -> dict[str, importlib.metadata.Distribution]:
    """The distributions that `pip install ofp-platform` brings, by name: pyproject's own list, then the metadata of each."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting = [Requirement(text) for text in project["dependencies"]]
    assert waiting
    distributions: dict[str, importlib.metadata.Distribution] = {"ofp-platform": importlib.metadata.distribution("ofp-platform")}
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in distributions or not (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            continue
        assert not requirement.extras, f"{requirement}: an extra brings more than is counted here"
        distributions[name] = importlib.metadata.distribution(name)
        waiting += [Requirement(text) for text in distributions[name].requires or []]
    return distributions


def top_level_packages(distributions: dict[str, importlib.metadata.Distribution]) -> set[str]:
    """What the distributions let one import."""
    by_package = importlib.metadata.packages_distributions()
    return {top for top, owners in by_package.items() if {canonicalize_name(owner) for owner in owners} & set(distributions)}


def test_the_client_brings_few_packages() -> None:
    names = sorted(installed_with_the_client())
    assert {"httpx", "ofp-platform", "pydantic"} <= set(names)
    assert len(names) <= MOST_PACKAGES, f"{len(names)} packages: {', '.join(names)}"


def test_the_client_answers_where_nothing_else_is_installed() -> None:
    allowed = sorted(top_level_packages(installed_with_the_client()) | {"ofp_platform"})
    assert not HEAVY & set(allowed)
    with running() as (_, address):
        arguments = json.dumps([allowed, str(ROOT), address, KEY, examples.request_example()])
        done = subprocess.run([sys.executable, "-c", ALONE, arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["hash"] == HASH
    assert not HEAVY & set(said["loaded"]), f"the client loads {sorted(HEAVY & set(said['loaded']))}"


def test_what_is_not_installed_is_refused_in_that_interpreter() -> None:
    arguments = json.dumps([["ofp_platform"], str(ROOT), "http://127.0.0.1:1", "", {}])
    done = subprocess.run([sys.executable, "-c", ALONE, arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "is not installed with the client" in done.stderr


def test_the_program_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ofp_platform.cli.main", raising=False)
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit) as stopped:
        entry.main()
    assert "no module 'typer'" in str(stopped.value)
    assert "pip install 'ofp-platform[plane]'" in str(stopped.value)


def test_a_missing_module_of_our_own_is_no_matter_of_installing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ofp_platform.cli.main", None)
    with pytest.raises(ModuleNotFoundError):
        entry.main()
