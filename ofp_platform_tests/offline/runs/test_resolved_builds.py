"""Builds whose groups resolve identities, from the intent to the rows: what is pinned, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from ofp_platform.identity.graph_knowledge import GraphKnowledge
from ofp_platform.offline.datasets.dataset_reader import read_dataset
from ofp_platform.offline.requests.intent_file import parse_intent
from ofp_platform.offline.runs.builder import build
from ofp_platform.registry.pack import shipped_pack_text
from ofp_platform.storage.decision_records import read_decisions
from ofp_platform.vocabulary.loop.decision_record import decision_id
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis
from ofp_platform.vocabulary.offline.build_refusal import BuildReason
from ofp_platform.vocabulary.offline.build_run import BuildRun, RunState
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.offline.feature_engine import FeatureEngine
from ofp_platform.vocabulary.times import parse_time
from ofp_platform_tests.offline.runs.test_builder import built, manifest_of
from ofp_platform_tests.oracle.labelled_plane import DECIDED, LabelledPlane
from ofp_platform_tests.oracle.simulated_log import PINS

COUNT = "account_activity_v1__count_24h"


def link(number: int, member: str, canonical: str) -> dict[str, Any]:
    """A link of two accounts that holds from the beginning."""
    return {
        "event_id": f"link-{number}",
        "event_type": "identity_link",
        "schema_version": "1",
        "ts_utc": "2026-01-01T00:00:00Z",
        **PINS,
        "payload": {
            "key_type": "account",
            "member": member,
            "canonical": canonical,
            "effective_time_utc": "2026-01-01T00:00:00Z",
        },
    }


def say(world: LabelledPlane, envelopes: list[dict[str, Any]], admitted: str) -> None:
    """Append to the context stream, admitted at a time."""
    receipt = world.plane.context_log(create=True).append(envelopes, lambda _: parse_time(admitted))
    assert not receipt.refusals


@pytest.fixture
def world(dsn: str, tmp_path: Path) -> Iterator[LabelledPlane]:
    """A pack whose accounts resolve; two of them are linked early, two late, behind the end of the data."""
    text = shipped_pack_text("card_payments").replace(
        "    key_type: account\n", "    key_type: account\n    identity: resolved\n", 1
    )
    pack = tmp_path / "pack.yaml"
    pack.write_text(text, encoding="utf-8")
    made = LabelledPlane.prepare(dsn, tmp_path, decided=False, pack=str(pack), context_stream="links")
    accounts = sorted({row["account_id"] for row in accounts_of(made)})
    say(made, [link(1, accounts[0], accounts[1])], "2026-01-05T00:00:00Z")
    say(made, [link(2, accounts[2], accounts[3])], "2027-01-01T00:00:00Z")
    made.decide()
    yield made
    made.plane.close()


def accounts_of(world: LabelledPlane) -> list[dict[str, Any]]:
    return [
        orjson.loads(payload)
        for batch in world.batches()
        for payload, kind in zip(batch.payloads, batch.event_types, strict=True)
        if kind == "card_payment" and b'"account_id"' in payload
    ]


def refusal(run: BuildRun) -> tuple[BuildReason, str, str]:
    assert run.state is RunState.FAILED
    assert run.refusal is not None
    return run.refusal.reason, run.refusal.field, run.refusal.message


def rows_of(world: LabelledPlane, manifest: DatasetManifest) -> dict[str, dict[str, Any]]:
    return {row["event_id"]: row for row in read_dataset(world.objects, manifest).to_pylist()}


def test_rows_know_the_links_of_their_basis(world: LabelledPlane) -> None:
    early = manifest_of(world, built(world, name="ingest", as_of_basis=AsOfBasis.INGEST_TIME))
    hindsight = manifest_of(world, built(world, name="hindsight", as_of_basis=AsOfBasis.EVENT_TIME))
    links = world.links()
    assert links is not None
    knowledge = GraphKnowledge(links)
    in_data = knowledge.version_at(parse_time("2026-06-01T00:00:00Z"))
    assert early.graph_version == hindsight.graph_version == in_data  # a link of next year is none of this data
    assert {column.name: column.role for column in early.columns}["graph_version"] == "as_of"
    rows = rows_of(world, early)
    assert {row["graph_version"] for row in rows.values()} == {
        knowledge.version_at(parse_time(f"{year}-06-01T00:00:00Z")).graph_version for year in (2025, 2026)
    }
    later = manifest_of(
        world,
        built(world, name="later", as_of_basis=AsOfBasis.EVENT_TIME, graph_version=knowledge.version_at(2**60).model_dump()),
    )
    assert len({early.dataset_identity, hindsight.dataset_identity, later.dataset_identity}) == 3
    differing = [name for name, row in rows_of(world, later).items() if row[COUNT] != rows_of(world, hindsight)[name][COUNT]]
    assert differing


def test_rows_of_decisions_are_what_was_served(world: LabelledPlane) -> None:
    manifest = manifest_of(
        world, built(world, as_of_basis=AsOfBasis.DECISION, policy={"policy_id": "analysis", "revision": 1}, purpose="analysis")
    )
    assert manifest.graph_version is None
    assert manifest.gates.served is not None
    assert manifest.gates.served.compared == manifest.row_count == 1
    assert manifest.gates.parity is not None
    assert manifest.gates.parity.match == 1
    links = world.links()
    assert links is not None
    assert rows_of(world, manifest)[DECIDED]["graph_version"] == GraphKnowledge(links).version_at(2**60).graph_version


def test_a_build_that_cannot_resolve_is_refused_before_anything_is_read(world: LabelledPlane) -> None:
    links = world.links()
    assert links is not None
    version = GraphKnowledge(links).version_at(2**60)
    alone = [{"group_name": "merchant_activity", "group_version": "v1"}]
    reason, field, text = refusal(built(world, feature_groups=alone, graph_version=version.model_dump()))
    assert (reason, field) == (BuildReason.INVALID_INTENT, "graph_version")
    assert "no group of the intent resolves identities" in text
    basis, decision = AsOfBasis.DECISION, {"purpose": "analysis", "policy": {"policy_id": "analysis", "revision": 1}}
    reason, field, text = refusal(built(world, as_of_basis=basis, graph_version=version.model_dump(), **decision))
    assert (reason, field) == (BuildReason.INVALID_INTENT, "graph_version")
    named = version.model_copy(update={"graph_version": "g_other"}).model_dump()
    reason, field, text = refusal(built(world, graph_version=named))
    assert (reason, field) == (BuildReason.BASIS_UNRESOLVED, "graph_version")
    blind = replace(world.build_context, context_log=None)
    run = build(blind, blind.ledger.submit(world.intent(name="blind")).run_key)
    reason, field, text = refusal(run)
    assert (reason, field) == (BuildReason.BASIS_UNRESOLVED, "feature_groups")
    assert "there is no stream of links" in text


def test_spark_does_not_resolve_and_says_so(world: LabelledPlane) -> None:
    pytest.importorskip("pyspark")
    eager = replace(world.build_context, engine=FeatureEngine.SPARK)
    reason, field, text = refusal(build(eager, eager.ledger.submit(world.intent()).run_key))
    assert (reason, field) == (BuildReason.FEATURE_PROFILE_UNRESOLVED, "feature_groups.0")
    assert "Spark does not" in text


def test_a_snapshot_is_rebuilt_by_its_version(world: LabelledPlane) -> None:
    plane = world.plane
    decided = decision_id(plane.profile.context_pins, "card_payment", DECIDED)
    with plane.pool.connection() as connection:
        record = read_decisions(connection, [decided])[decided].model_dump(mode="json")
    content = {
        "kind": "ofs_build_intent",
        "intent": "forensic_rebuild",
        "context_pins": PINS,
        "run_facts_ref": "facts/run-1",
        "stream_name": plane.log.stream_name,
        "policy": {"policy_id": "analysis", "revision": 1},
        "basis": record["input_basis"],
        "feature_pack": record["feature_definition_set"],
        "run_config_digest": record["run_config_digest"],
        "feature_keys": record["feature_keys"],
        "feature_groups": record["feature_groups"],
        "as_of_time_utc": record["as_of_time_utc"],
        "graph_version": record["graph_version"],
        "expected_hash": record["feature_snapshot_hash"],
    }
    build_context = world.build_context
    run = build(build_context, build_context.ledger.submit(parse_intent(content)).run_key)
    assert run.outcome is not None, run.refusal
    assert run.outcome["outcome"] == "MATCH"
    nameless = {name: value for name, value in content.items() if name != "graph_version"}
    reason, field, text = refusal(build(build_context, build_context.ledger.submit(parse_intent(nameless)).run_key))
    assert (reason, field) == (BuildReason.INVALID_INTENT, "graph_version")
    assert "give that of the snapshot" in text
