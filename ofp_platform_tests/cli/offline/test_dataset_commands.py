"""`ofp intent submit --build`, `ofp build`, and `ofp dataset` on what they publish."""

from __future__ import annotations

import json
import re
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pytest

from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform_tests.cli.conftest import OfflinePlane
from ofp_platform_tests.cli.program import Ofp


@pytest.fixture(scope="module")
def dataset(offline: OfflinePlane) -> str:
    """The training set by what was known at each payment."""
    return offline.built()


@pytest.fixture(scope="module")
def hindsight(offline: OfflinePlane) -> str:
    """The same by event time."""
    return offline.built(as_of_basis="event_time")


def test_a_build_is_told_stage_by_stage(offline: OfflinePlane) -> None:
    first = offline.ofp("intent", "submit", offline.intent_file(name="told"), "--build")
    stages = [line.split()[0] for line in first.err.splitlines()]
    assert (first.code, stages) == (0, ["plan", "replay", "parity", "labels", "staged", "manifest"])
    assert first.out.split()[1:] == ["DONE", "dataset_build", "told"]
    again = offline.ofp("intent", "submit", offline.intent_file(name="told"), "--build")
    assert (again.code, again.out, again.err) == (0, first.out, "")
    key = first.out.split()[0]
    assert offline.ofp("build", "run", key[:8]).out == first.out


def test_what_waits_is_built(offline: OfflinePlane) -> None:
    queued = offline.ofp("intent", "submit", offline.intent_file(name="waits"))
    assert " QUEUED " in queued.out
    refused = offline.ofp("intent", "submit", offline.intent_file(name="refused", run_facts_ref="facts/none"))
    done = offline.ofp("build", "run", "--waiting", "--workers", "1")
    assert done.code == 1
    states = {line.split()[0]: line.split()[1] for line in done.out.splitlines()}
    assert states == {queued.out.split()[0]: "DONE", refused.out.split()[0]: "FAILED"}
    assert "RUN_FACTS_UNAVAILABLE (run_facts_ref)" in done.out
    assert offline.ofp("build", "run", "--waiting").out == "nothing waits\n"
    failed = offline.ofp("build", "run", refused.out.split()[0])
    assert (failed.code, "RUN_FACTS_UNAVAILABLE" in failed.out) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "says"), [((), "name a run"), (("0" * 8,), "no build run begins"), (("x",), "64 hex digits")]
)
def test_what_the_builder_refuses(offline: OfflinePlane, arguments: tuple[str, ...], says: str) -> None:
    assert says in offline.ofp("build", "run", *arguments).refused()


def test_list_and_show(offline: OfflinePlane, dataset: str) -> None:
    listed = offline.ofp("dataset", "list", "fraud_by_payment").out.splitlines()
    name, identity = dataset.split(":")
    at = [line.split("  ")[0] for line in listed].index(f"{name}:{identity[:12]}")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", listed[at].split("  ")[1])
    assert listed[at + 1] == "    400 rows, training, ingest_time"
    assert offline.ofp("dataset", "show", listed[at].split("  ")[0]).code == 0
    assert offline.ofp("dataset", "list", "nothing").out == "nothing is published\n"
    shown = offline.ofp("dataset", "show", f"{name}:{identity[:8]}").out
    for line in (
        f"dataset +{dataset}",
        "gate: completeness +.* applied",
        "gate: labels +coverage 1.0",
        "skew +1 of 1 decisions about 400 rows",
        "policy +fraud_training",
    ):
        assert re.search(f"^{line}", shown, re.MULTILINE), shown
    whole = json.loads(offline.ofp("dataset", "show", dataset, "--json").out)
    assert (whole["kind"], whole["dataset_identity"]) == ("dataset_manifest", identity)


def test_a_dataset_is_told_to_a_catalogue(offline: OfflinePlane, dataset: str, tmp_path: Path) -> None:
    path = tmp_path / "lineage.ndjson"
    for _ in range(2):
        assert offline.ofp("dataset", "export", dataset, "--openlineage", str(path)).code == 0
    first, again = path.read_text(encoding="utf-8").splitlines()
    assert first == again
    event = json.loads(first)
    manifest = json.loads(offline.ofp("dataset", "show", dataset, "--json").out)
    (listed,) = [
        row
        for row in json.loads(offline.ofp("dataset", "list", manifest["dataset_name"], "--json").out)
        if row["dataset_identity"] == manifest["dataset_identity"]
    ]
    assert event["eventTime"] == listed["published_at_utc"]
    (made,) = event["outputs"]
    assert made["facets"]["version"]["datasetVersion"] == manifest["dataset_identity"]
    assert made["facets"]["ofp_digests"]["digests"]["content"] == manifest["content_digest"]
    assert made["outputFacets"]["outputStatistics"]["rowCount"] == 400


def test_verify_finds_a_flipped_byte(offline: OfflinePlane, dataset: str) -> None:
    good = offline.ofp("dataset", "verify", dataset)
    assert (good.code, "computed again, equal" in good.out) == (0, True)
    folder = offline.labelled.objects.folder
    assert folder is not None
    name, identity = dataset.split(":")
    part = next((folder / "ofs" / "datasets" / name / identity).rglob("*.parquet"))
    content = part.read_bytes()
    try:
        part.chmod(0o644)
        part.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
        assert "is damaged" in offline.ofp("dataset", "verify", dataset).refused()
        assert "is damaged" in offline.ofp("dataset", "load", dataset).refused()
        part.unlink()
        assert "is missing" in offline.ofp("dataset", "verify", dataset).refused()
    finally:
        part.write_bytes(content)


def test_verify_finds_a_dataset_that_agrees_with_itself_alone(offline: OfflinePlane, dataset: str) -> None:
    folder = offline.labelled.objects.folder
    assert folder is not None
    name, identity = dataset.split(":")
    path = folder / "ofs" / "datasets" / name / identity / "manifest.json"
    content = path.read_bytes()
    manifest = DatasetManifest.model_validate_json(content)
    # whoever can write to the store writes another manifest with a seal of its own; the files are as it says
    forged = manifest.model_copy(update={"supersedes": "7" * 64})
    try:
        path.chmod(0o644)
        path.write_bytes(canonical_bytes(forged.wire()))
        assert DatasetManifest.model_validate_json(path.read_bytes()).supersedes == "7" * 64
        said = offline.ofp("dataset", "verify", dataset).refused()
        assert f"the manifest has the digest {forged.digest}, the index recorded {manifest.digest}" in said
        assert f"the manifest has the digest {forged.digest}, the build recorded {manifest.digest}" in said
    finally:
        path.write_bytes(content)
    assert "the one that index and build recorded" in offline.ofp("dataset", "verify", dataset).out


def test_diff(offline: OfflinePlane, dataset: str, hindsight: str) -> None:
    assert offline.ofp("dataset", "diff", dataset, dataset).out == "meaning: the same\ncontent: the same\n"
    said = offline.ofp("dataset", "diff", dataset, hindsight).out
    assert "  as_of_basis: ingest_time | event_time\n" in said
    assert said.count(" | ") == 1
    assert "  400 rows in both, 0 in the first alone, 0 in the second\n" in said
    assert "columns of the first alone: known_until_utc" in said


def test_the_lines_of_load_open_it(offline: OfflinePlane, dataset: str, tmp_path: Path) -> None:
    for arguments in ((), ("--to", str(tmp_path / "there" / "export"))):
        lines = offline.ofp("dataset", "load", dataset, *arguments).out.splitlines()
        for line, kind in zip(lines, (pd.DataFrame, pl.DataFrame, duckdb.DuckDBPyRelation), strict=True):
            opened: dict[str, object] = {}
            exec(line, opened)
            assert isinstance(opened["rows"], kind)
            assert len(opened["rows"]) == 400  # type: ignore[arg-type]
    manifest = json.loads((tmp_path / "there" / "export" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["row_count"] == 400
    assert "exists: name a new folder" in offline.ofp("dataset", "load", dataset, "--to", str(tmp_path)).refused()


@pytest.mark.parametrize("name", ["fraud_by_payment", "fraud_by_payment:latest", "fraud_by_payment:abc", ":"])
def test_a_dataset_is_named_with_its_identity(offline: OfflinePlane, name: str) -> None:
    for command in ("show", "verify", "load"):
        assert "NAME:IDENTITY" in offline.ofp("dataset", command, name).refused()


def test_no_such_dataset(offline: OfflinePlane) -> None:
    assert "no dataset is published as none" in offline.ofp("dataset", "show", f"none:{'0' * 64}").refused()


def test_what_a_model_cannot_be_trained_from(offline: OfflinePlane, dataset: str) -> None:
    for option in ("--entity", "--amount"):
        assert "has no column card_id; it has" in offline.ofp("model", "train", dataset, option, "card_id").refused()
    of_cards = offline.built(name="of_cards", feature_groups=[{"group_name": "card_activity", "group_version": "v1"}])
    assert "both classes are needed" in offline.ofp("model", "train", of_cards, "--first-day", "2030-01-01").refused()
    unlabelled = offline.built(name="unlabelled", purpose="analysis", label=None, policy={"policy_id": "analysis", "revision": 1})
    assert "PURPOSE_NOT_TRAINING" in offline.ofp("model", "train", unlabelled).refused()


def test_no_database_is_needed_to_look_at_a_dataset(ofp: Ofp, offline: OfflinePlane, dataset: str) -> None:
    profile = offline.variables["OFP_PROFILE"]
    verified = ofp("dataset", "verify", dataset, "--profile", profile)
    assert verified.code == 0
    assert "the database does not answer: what index and build recorded was not compared" in verified.err
    assert "recorded" not in verified.out
