"""The program as a person calls it, in this process, on a small plane."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.cli.environment import Environment
from ofp_platform.vocabulary.offline.build_intent import intent_wire
from ofp_platform_tests.cli.program import Ofp, Outcome, call
from ofp_platform_tests.oracle.demo_plane import fill_demo_plane
from ofp_platform_tests.oracle.labelled_plane import LabelledPlane


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests reaches them."""
    for name in (*(f"OFP_{field.upper()}" for field in Environment.model_fields), "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OFP_ROLE_PER_JOB", "1")  # a named server, too: no command works with rights that its job has not
    monkeypatch.setenv("COLUMNS", "130")


@pytest.fixture
def ofp(tmp_path: Path) -> Ofp:
    """The program with a home of its own, and no database that it could start by mistake."""
    (tmp_path / "home").mkdir(mode=0o700)

    def run(*arguments: str, **environ: str) -> Outcome:
        settings = {"OFP_HOME": str(tmp_path / "home"), "OFP_DATABASE_URL": "postgresql://postgres@127.0.0.1:1/none"}
        return call(*arguments, **{**settings, **environ})

    return run


@pytest.fixture(scope="module")
def plane_home(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables that name a small plane of the demo's run, projected."""
    home = tmp_path_factory.mktemp("plane")
    assert fill_demo_plane(home, module_dsn) > 50
    return {"OFP_HOME": str(home), "OFP_DATABASE_URL": module_dsn}


@pytest.fixture
def on_plane(plane_home: dict[str, str]) -> Ofp:
    """The program on that plane."""

    def run(*arguments: str, **environ: str) -> Outcome:
        return call(*arguments, **{**plane_home, **environ})

    return run


@pytest.fixture
def payment() -> dict[str, Any]:
    """The envelope of a payment of the demo's run, a few seconds after its end."""
    pins = Environment(profile="demo").load_profile().context_pins.wire()
    payload = {
        **{f"{kind}_id": f"{kind}-0001340" for kind in ("account", "customer", "device")},
        "amount_minor": 5000,
        "card_id": "card-0001854",
        "channel": "pos",
        "merchant_id": "merchant-0000296",
        "status": "approved",
    }
    event = {"event_id": "mine", "event_type": "card_payment", "schema_version": "v1", "ts_utc": "2026-02-05T00:00:05Z"}
    return {**event, **pins, "payload": payload}


@dataclass
class OfflinePlane:
    """A plane ready for datasets, and the program on it."""

    labelled: LabelledPlane
    variables: dict[str, str]

    def ofp(self, *arguments: str) -> Outcome:
        return call(*arguments, **self.variables)

    def intent_file(self, **changes: Any) -> str:
        """The training set of all payments, as a file."""
        path = self.labelled.folder / "intent.json"
        path.write_text(json.dumps(intent_wire(self.labelled.intent(**changes))), encoding="utf-8")
        return str(path)

    def built(self, **changes: Any) -> str:
        """The training set, built; as `ofp dataset` names it."""
        outcome = self.ofp("intent", "submit", self.intent_file(**changes), "--build")
        assert outcome.code == 0, outcome
        run = self.labelled.build_context.ledger.show(outcome.out.split()[0])
        assert run.outcome is not None
        return f"{run.outcome['dataset_name']}:{run.outcome['dataset_identity']}"


@pytest.fixture(scope="module")
def offline(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfflinePlane]:
    """Simulated payments of three weeks, archived and labelled, with the facts of their run."""
    folder = tmp_path_factory.mktemp("offline")
    labelled = LabelledPlane.prepare(module_dsn, folder)
    source = str(folder / "profile.yaml")
    variables = {"OFP_HOME": str(folder / "home"), "OFP_DATABASE_URL": module_dsn, "OFP_PROFILE": source}
    with labelled.plane:
        yield OfflinePlane(labelled, variables)
