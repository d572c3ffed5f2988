"""`ofp parity`: a run proven, a planted mismatch shown with its evidence, and what cannot be compared refused in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from ofp_platform.cli.environment import Environment
from ofp_platform.client import make_request
from ofp_platform.online.plane import Plane
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.storage.decision_records import append_decisions
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, decision_id
from ofp_platform_tests.cli.program import Ofp
from ofp_platform_tests.oracle.demo_plane import ACCOUNT, AFTER_THE_DEMO


@pytest.fixture
def plane(plane_home: dict[str, str]) -> Iterator[Plane]:
    environment = Environment(home=Path(plane_home["OFP_HOME"]), database_url=plane_home["OFP_DATABASE_URL"])
    with environment.open_plane("owner") as opened:
        yield opened


def decide(plane: Plane, event_id: str, snapshot_hash: str | None = None) -> DecisionRecord:
    """Record a decision on what is served now, its snapshot stored; another hash makes a false record of it."""
    question = make_request(
        context_pins=plane.profile.context_pins,
        feature_keys=[("account", ACCOUNT)],
        feature_groups=[("account_activity", "v1")],
        as_of_time_utc=AFTER_THE_DEMO,
    )
    answer = plane.reader(plane.ensure_live()).answer(question)
    SnapshotStore(plane.pool, ObjectStore(plane.profile.object_store_url)).materialise([answer])
    provenance = orjson.loads(answer.body)["provenance"]
    requested = provenance["requested"]
    record = DecisionRecord.model_validate(
        {
            "decision_id": decision_id(plane.profile.context_pins, "card_payment", event_id),
            "context_pins": provenance["context_pins"],
            "event_type": "card_payment",
            "event_id": event_id,
            "event_position": {"stream_name": plane.profile.stream_name, "partition_id": "0000", "offset": 0},
            "feature_snapshot_hash": snapshot_hash or answer.hash,
            **{name: requested[name] for name in ("as_of_time_utc", "feature_keys", "feature_groups", "request_context")},
            **{
                name: provenance[name] for name in ("feature_definition_set", "run_config_digest", "input_basis", "graph_version")
            },
            "rule": {"rule_name": "a_rule", "rule_version": "v1", "digest": "d" * 64},
            "score": 1,
            "outcome": "review",
            "decided_at_utc": "2026-02-05T00:00:00Z",
        }
    )
    with plane.pool.connection() as connection:
        append_decisions(connection, [record])
    return record


def test_a_run_is_proven_and_a_false_record_found(on_plane: Ofp, plane: Plane, tmp_path: Path) -> None:
    assert "no decision of this run is recorded" in on_plane("parity", "run").refused()
    assert "nothing was compared yet" in on_plane("parity", "show").refused()
    record = decide(plane, "one")
    proven = on_plane("parity", "run")
    assert proven.code == 0
    request, counts = proven.out.splitlines()
    assert counts == "MATCH 1  MISMATCH 0  UNCHECKABLE 0"
    shown = on_plane("parity", "show", request.split()[1][:10])
    assert shown.code == 0
    assert "2026-02-05  account_activity v1" in shown.out
    corrected = on_plane("parity", "corrections")
    assert corrected.out.splitlines()[1] == "1 decisions compared, 0 of them with other features"

    # the decision says another snapshot than was served; the request is the same, so its earlier outcome is not overwritten
    decide(plane, "two", "5" * 64)
    ends = plane.log.ends()
    parts = [part.model_copy(update={"offset": int(part.offset) - (number == 3)}) for number, part in enumerate(ends.partitions)]
    beside = tmp_path / "basis.json"
    beside.write_bytes(canonical_bytes(ends.model_copy(update={"partitions": tuple(parts)}).model_dump(mode="json")))
    found = on_plane("parity", "run")
    assert found.code == 1
    assert "MATCH 1  MISMATCH 1  UNCHECKABLE 0" in found.out
    assert f"log gives {record.feature_snapshot_hash}" in found.out
    assert on_plane("parity", "show", request.split()[1]).code == 1
    short = on_plane("parity", "run", "--basis", str(beside))
    assert (short.code, short.out.splitlines()[-1]) == (1, "MATCH 0  MISMATCH 0  UNCHECKABLE 2")
    assert len(on_plane("parity", "show").out.splitlines()) == 2


def test_what_is_no_basis_is_refused(on_plane: Ofp, tmp_path: Path) -> None:
    (tmp_path / "basis.json").write_text("{}")
    assert "holds no basis" in on_plane("parity", "run", "--basis", str(tmp_path / "basis.json")).refused()
    assert "No such file" in on_plane("parity", "run", "--basis", str(tmp_path / "none.json")).refused()
