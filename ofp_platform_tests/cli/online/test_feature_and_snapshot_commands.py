"""`ofp features` and `ofp snapshot`: ask, fetch by hash, rebuild, and every refusal in words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from ofp_platform.cli.environment import Environment
from ofp_platform.client import make_request, verify
from ofp_platform.kernel.snapshot import Answer
from ofp_platform.online.plane import Plane
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.roles import Job
from ofp_platform.storage.snapshot_records import snapshot_path
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.catalogue import Catalogue
from ofp_platform.vocabulary.serving import GetFeaturesResponse, SnapshotRecord
from ofp_platform.vocabulary.snapshot_hash import snapshot_hash
from ofp_platform_tests.cli.program import Ofp, call
from ofp_platform_tests.oracle.demo_plane import ACCOUNT, AFTER_THE_DEMO

MIGRATED = {"alembic_version": 1, "database_role": len(Job), "log_stream": 1, "log_head": 1, "governance_stream": 1}
"""The rows that a new database has: the stream of governance facts is of the database, not of a run."""
ASK = ("features", "get", "--key", f"account:{ACCOUNT}", "--group", "account_activity:v1", "--as-of", AFTER_THE_DEMO)


def test_the_catalogue_says_what_features_are(on_plane: Ofp) -> None:
    listed = on_plane("catalog", "list").out
    assert "account_activity:v1  account, 10 features, 0 readers, team:fraud-platform\n  How often" in listed
    assert "card_activity:v1" in listed
    assert on_plane("catalog", "list", "--tag", "velocity").out.count(" features, ") == 1
    assert on_plane("catalog", "list", "--search", "DECLINED_RATIO").out.startswith("account_activity:v1")
    assert on_plane("catalog", "list", "--tag", "none").out == "no group of the pack is like that\n"
    whole = Catalogue.model_validate_json(on_plane("catalog", "list", "--json").out)
    assert len(whole.groups) == listed.count(" features, ")
    shown = on_plane("catalog", "show", "account_activity:v1").out
    assert "\n  sum_amount_30d  integer\n    sum of amount_minor over card_payment in 30d\n" in shown
    assert "nobody reads it" in shown
    one = json.loads(on_plane("catalog", "show", "account_activity:v1", "--json").out)
    assert one["content_digest"] in shown
    assert "did you mean 'account_activity:v1'?" in on_plane("catalog", "show", "acount_activity:v1").refused()


def test_features_of_the_last_account(on_plane: Ofp) -> None:
    outcome = on_plane(*ASK)
    assert outcome.code == 0, outcome.err
    response = GetFeaturesResponse.model_validate_json(outcome.out)
    assert verify(response) == response.provenance.feature_snapshot_hash
    features = response.snapshot.by_key[0].by_group[0].features
    # what `make demo` gives: the plane of the tests holds every record of this account
    assert features["sum_amount_30d"] == 107016
    assert features["mean_amount_30d"] == "1754.360656"
    assert max(map(len, outcome.out.splitlines())) <= 120


def test_a_question_about_a_run_that_nobody_projected_creates_nothing(dsn: str, tmp_path: Path) -> None:
    words = call(*ASK, OFP_HOME=str(tmp_path), OFP_DATABASE_URL=dsn).refused()
    assert "NOT_FOUND / UNKNOWN_RUN" in words
    assert "`ofp projector run`" in words
    variables = {"OFP_HOME": str(tmp_path), "OFP_DATABASE_URL": dsn}
    for reading in (("log", "ends"), ("intent", "list"), ("archive", "list"), ("projection", "rebuild"), ("parity", "run")):
        outcome = call(*reading, **variables)
        assert (outcome.code == 0 and not outcome.out) or "there is no stream" in outcome.refused(), reading
    assert len(call("projection", "list", **variables).out.splitlines()) == 1
    assert "`ofp projector run` makes one" in call("projector", "status", **variables).refused()
    assert "was materialised here" in call("snapshot", "show", "0" * 64, **variables).refused()
    with psycopg.connect(dsn) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'ofp'::regnamespace AND relkind = 'r'"
        ).fetchall()
        for (name,) in tables:
            count = sql.SQL("SELECT count(*) FROM ofp.{}").format(sql.Identifier(name))
            row = connection.execute(count).fetchone()
            assert row == (MIGRATED.get(name, 0),), name


def test_a_request_context_is_used(on_plane: Ofp) -> None:
    ask = ("features", "get", "--key", f"account:{ACCOUNT}", "--group", "account_amount:v1", "--as-of", AFTER_THE_DEMO)
    shown = on_plane(*ask, "--context", "amount_minor=5000").out
    assert '"amount_over_mean_30d": "2.850041"' in shown
    assert "REQUEST_CONTEXT_MISSING" in on_plane(*ask).refused()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (("--as-of", "2026-02-05"), "INVALID_REQUEST / INVALID_TIME"),
        (("--as-of", "2026-02-05T00:00:00.123456789Z"), "INVALID_REQUEST / INVALID_TIME"),
        (("--as-of", "2025-02-05T00:00:00Z"), "INVALID_REQUEST / AS_OF_BEFORE_HORIZON"),
        (("--group", "account_activity:v7"), "NOT_FOUND / UNKNOWN_GROUP_VERSION"),
        (("--group", "merchant_risk:v1"), "INVALID_REQUEST / KEY_WITHOUT_GROUP"),
        (("--group", "account_activity"), "--group is written NAME:VERSION"),
        (("--key", "account"), "--key is written TYPE:ID"),
        (("--key", "account:4000001234567899"), "INVALID_REQUEST / RAW_IDENTIFIER"),
        (("--context", "amount_minor=1", "--context", "amount_minor=2"), "--context names amount_minor twice"),
        (("--key", "terminal:t-1"), "INVALID_REQUEST / INVALID_FIELD"),
        (("--context", "amount"), "--context is written NAME=VALUE"),
        (("--at-least", "0000"), "--at-least is written PARTITION:OFFSET"),
        (("--at-least", "0000:x"), "--at-least is written PARTITION:OFFSET"),
        (("--at-least", "0000:999999"), "UNAVAILABLE / BASIS_NOT_REACHED"),
        (("--at-least", "nowhere:0"), "INVALID_REQUEST / INVALID_FIELD"),
        (("--url", "http://127.0.0.1:1"), "ConnectError"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_refusals_are_words(on_plane: Ofp, changed: tuple[str, ...], says: str) -> None:
    option = changed[0]
    kept = [pair for pair in zip(ASK[2::2], ASK[3::2], strict=True) if pair[0] != option]
    outcome = on_plane("features", "get", *(word for pair in [*kept, changed] for word in pair))
    assert says in outcome.refused()
    assert "4000001234567899" not in outcome.err
    assert outcome.out == ""


def test_there_is_no_default_as_of(on_plane: Ofp) -> None:
    outcome = on_plane(*ASK[:-2])
    assert outcome.code == 2
    assert "--as-of" in outcome.err


def store_of(plane: Plane) -> SnapshotStore:
    return SnapshotStore(plane.pool, ObjectStore(plane.profile.object_store_url))


@pytest.fixture
def plane(plane_home: dict[str, str]) -> Iterator[Plane]:
    environment = Environment(home=Path(plane_home["OFP_HOME"]), database_url=plane_home["OFP_DATABASE_URL"])
    with environment.open_plane("owner") as opened:
        yield opened


def answered(plane: Plane) -> Answer:
    question = make_request(
        context_pins=plane.profile.context_pins,
        feature_keys=[("account", ACCOUNT)],
        feature_groups=[("account_activity", "v1")],
        as_of_time_utc=AFTER_THE_DEMO,
    )
    return plane.reader(plane.ensure_live()).answer(question)


@pytest.fixture
def stored(plane: Plane) -> str:
    """The hash of a snapshot that was materialised, as a service does with what it serves."""
    answer = answered(plane)
    store_of(plane).materialise([answer])
    return answer.hash


def test_a_snapshot_is_shown_and_rebuilt_from_the_log(on_plane: Ofp, stored: str) -> None:
    shown = on_plane("snapshot", "show", stored)
    record = SnapshotRecord.model_validate_json(shown.out)
    assert snapshot_hash(record.hashed) == record.feature_snapshot_hash == stored
    rebuilt = on_plane("snapshot", "rebuild", stored)
    assert rebuilt.code == 0
    assert rebuilt.out.splitlines()[0] == f"recorded {stored}"
    assert re.fullmatch(rf"rebuilt  {stored}  from [\d,]+ records of the log", rebuilt.out.splitlines()[1])
    assert rebuilt.out.splitlines()[2] == "MATCH"


def test_a_snapshot_that_the_log_does_not_give_is_a_mismatch(on_plane: Ofp, plane: Plane, stored: str) -> None:
    hashed = json.loads(store_of(plane).load(stored))["hashed"]
    hashed["values"][0]["by_group"][0]["features"]["count_1h"] += 1
    forged = replace(answered(plane), hash=snapshot_hash(hashed), hashed=canonical_bytes(hashed))
    store_of(plane).materialise([forged])
    outcome = on_plane("snapshot", "rebuild", forged.hash)
    assert outcome.refused() == "MISMATCH: what was served is not what the log gives\n"
    assert f"rebuilt  {stored}" in outcome.out


def test_each_value_of_a_snapshot_is_explained_by_its_events(on_plane: Ofp, plane: Plane, stored: str) -> None:
    (by_group,) = json.loads(store_of(plane).load(stored))["hashed"]["values"][0]["by_group"]
    for feature, value in by_group["features"].items():
        told = json.loads(on_plane("snapshot", "explain", stored, "--feature", feature, "--json").out)
        assert told["value"] == value
        if feature.startswith("count_"):
            assert len(told["windows"][0]["events"]) == value
        if feature.startswith("sum_"):
            assert sum(event["value"] for event in told["windows"][0]["events"]) == value
    shown = on_plane("snapshot", "explain", stored, "--feature", "count_24h").out.splitlines()
    assert shown[0] == f"account_activity v1 count_24h of account:{ACCOUNT}"
    assert shown[2] == "value: count, card_payment"
    assert len(shown) == 4 + by_group["features"]["count_24h"]
    position = shown[4].split()[0]
    assert json.loads(on_plane("log", "show", position).out)


def test_what_cannot_be_explained_is_refused(on_plane: Ofp, plane: Plane, stored: str) -> None:
    refusal = on_plane("snapshot", "explain", stored, "--feature", "nothing").refused()
    assert refusal == "nothing: none is meant: not in this snapshot\n"
    other = on_plane("snapshot", "explain", stored, "--feature", "count_1h", "--key", "account:other").refused()
    assert f"none is meant: --key account:{ACCOUNT} --group account_activity:v1" in other
    hashed = json.loads(store_of(plane).load(stored))["hashed"]
    hashed["values"][0]["by_group"][0]["features"]["count_1h"] += 1
    forged = replace(answered(plane), hash=snapshot_hash(hashed), hashed=canonical_bytes(hashed))
    store_of(plane).materialise([forged])
    outcome = on_plane("snapshot", "explain", forged.hash, "--feature", "count_1h")
    assert outcome.refused() == "MISMATCH: what was served is not what the log gives\n"
    assert outcome.out == ""


@pytest.mark.parametrize("command", ["show", "rebuild"])
def test_snapshots_that_are_not_there(on_plane: Ofp, command: str) -> None:
    assert on_plane("snapshot", command, "0" * 64).refused() == (
        f"NOT_FOUND / UNKNOWN_SNAPSHOT: no snapshot {'0' * 64} was materialised here\n"
    )
    assert on_plane("snapshot", command, "../../profile").refused() == "a snapshot hash is 64 hex digits, in lower case\n"


def test_a_snapshot_whose_object_is_gone_is_not_unknown(on_plane: Ofp, plane: Plane, stored: str) -> None:
    path = Path(plane.profile.object_store_url.removeprefix("file://")) / snapshot_path(stored)
    whole = path.read_bytes()
    path.unlink()
    try:
        refusal = on_plane("snapshot", "show", stored).refused()
    finally:
        path.write_bytes(whole)
    assert "SNAPSHOT_CORRUPT" in refusal
    assert "is gone; the index knows it" in refusal


def test_a_damaged_snapshot_is_not_shown(on_plane: Ofp, plane: Plane, stored: str) -> None:
    path = Path(plane.profile.object_store_url.removeprefix("file://")) / snapshot_path(stored)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    try:
        outcome = on_plane("snapshot", "show", stored)
    finally:
        path.write_bytes(whole)
    assert "SNAPSHOT_CORRUPT" in outcome.refused()
    assert outcome.out == ""


def test_a_lost_index_is_written_again(on_plane: Ofp) -> None:
    first = on_plane("snapshot", "reindex")
    assert (first.code, first.out.startswith("indexed: ")) == (0, True), first
    again = on_plane("snapshot", "reindex")
    assert again.out.startswith("indexed: 0 of "), again
